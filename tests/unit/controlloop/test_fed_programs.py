"""Programs that are fed while what they read is still being made."""

import pytest
from deadline import eventually

from controlloop.command import CommandError, Fed

MORE_THAN_A_PIPE_HOLDS = b"x" * 1_000_000


async def test_the_pieces_come_in_their_order_and_the_program_ends_after_the_last(tmp_path):
    copy = tmp_path / "copy"
    fed = Fed(["sh", "-c", f"cat >{copy}"])
    for number in range(100):
        fed.feed(b"%d\n" % number)
    eventually(lambda: copy.exists() and copy.read_bytes().startswith(b"0\n"))
    await fed.end(MORE_THAN_A_PIPE_HOLDS)
    assert copy.read_bytes() == b"".join(b"%d\n" % number for number in range(100)) + MORE_THAN_A_PIPE_HOLDS


async def test_one_that_fails_midway_holds_nobody_up_and_says_why_in_the_end():
    fed = Fed(["sh", "-c", "read line; echo not $line >&2; exit 2"])
    for _ in range(20):
        fed.feed(b"this\n" + MORE_THAN_A_PIPE_HOLDS)
    with pytest.raises(CommandError, match=r"failed \(exit 2\): not this$"):
        await fed.end(b"")


async def test_one_that_does_not_read_can_be_given_up():
    fed = Fed(["sleep", "60"])
    fed.feed(MORE_THAN_A_PIPE_HOLDS)
    fed.abandon()
    with pytest.raises(CommandError, match=r"\(exit -9\)"):
        await fed.end(b"")


def test_a_missing_one_is_named():
    with pytest.raises(CommandError, match="nosuch is not installed"):
        Fed(["nosuch"])
