"""Programs that run, fail, are missing, or are no longer wanted."""

import asyncio
import subprocess
from threading import Event

import pytest
from deadline import PATIENCE_S, eventually

from controlloop.command import CommandError, own_processes, run
from lab.processes import start_time


async def test_stdin_goes_in_and_stdout_comes_back():
    assert await run(["tr", "a-z", "A-Z"], b"text\n") == b"TEXT\n"


async def test_a_missing_program_is_named_with_where_it_was_looked_for():
    with pytest.raises(CommandError, match=r"^nosuch failed \(exit 127\): nosuch is not installed \(looked in /usr"):
        await run(["nosuch", "argument"])


async def test_a_failure_shows_the_command_its_exit_code_and_the_first_line_it_said():
    with pytest.raises(CommandError) as caught:
        await run(["sh", "-c", "echo first >&2; echo second >&2; exit 3"])
    assert str(caught.value).endswith("failed (exit 3): first")
    assert caught.value.argv[0] == "sh"
    assert (caught.value.returncode, caught.value.stderr) == (3, "first\nsecond\n")


async def test_a_program_inherits_no_settings_of_the_caller(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    names = {line.partition(b"=")[0] for line in (await run(["env"])).splitlines()}
    assert names <= {b"PATH", b"LC_ALL", b"XTABLES_LOCKFILE", b"XTABLES_LIBDIR"}


async def test_a_program_that_leaves_its_input_unread_does_no_harm():
    assert await run(["true"], b"x" * 1_000_000) == b""


async def test_a_cancelled_caller_takes_the_program_with_it(tmp_path):
    pid_file = tmp_path / "pid"
    running = asyncio.create_task(run(["sh", "-c", f"echo $$ >{pid_file}; exec sleep 60"]))
    async with asyncio.timeout(PATIENCE_S):
        while not (pid_file.exists() and pid_file.read_text()):  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.005)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    eventually(lambda: start_time(int(pid_file.read_text())) is None)


async def test_a_cancellation_counts_also_when_the_program_has_just_ended(monkeypatch):
    communicate, loop, is_cancelled = subprocess.Popen.communicate, asyncio.get_running_loop(), Event()

    def cancelled_at_the_last_moment(process):
        outputs = communicate(process)
        loop.call_soon_threadsafe(running.cancel)
        loop.call_soon_threadsafe(is_cancelled.set)
        is_cancelled.wait(5)
        return outputs

    monkeypatch.setattr(subprocess.Popen, "communicate", cancelled_at_the_last_moment)
    running = asyncio.create_task(run(["true"]))
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_program_is_known_as_ours_before_the_loop_turns():
    """Else the kernel may tell of what it changed when nobody knows yet that it is ours."""
    before = list(own_processes)
    running = asyncio.create_task(run(["true"]))
    turned = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: turned.set_result(list(own_processes)))
    assert (await turned)[-1:] != before[-1:]
    await running
