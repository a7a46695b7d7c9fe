"""The recipe against kernels that obey, that need time, and that never do."""

import pytest

from controlloop.errors import VerificationError
from controlloop.reconcile import describe, reconcile


class Obedient:
    def __init__(self, state):
        self.state, self.applied = state, 0

    async def dump(self):
        return dict(self.state)

    async def apply(self, delta):
        self.applied += 1
        delta.apply_to(self.state)


class Forgetful(Obedient):
    """Drops what it was told until the last of `deaf` times."""

    def __init__(self, state, deaf):
        super().__init__(state)
        self.deaf = deaf

    async def apply(self, delta):
        self.deaf -= 1
        if self.deaf < 0:
            await super().apply(delta)


async def test_a_kernel_in_order_is_left_alone():
    kernel = Obedient({"a": 1})
    report = await reconcile(lambda: {"a": 1}, kernel)
    assert not report.delta
    assert kernel.applied == 0


async def test_one_pass_is_enough_for_a_kernel_that_obeys():
    kernel = Obedient({"a": 1, "b": 2})
    report = await reconcile(lambda: {"a": 2, "c": 3}, kernel)
    assert kernel.state == {"a": 2, "c": 3}
    assert kernel.applied == 1
    assert report.delta.drop == {"a": 1, "b": 2}


async def test_what_did_not_arrive_is_tried_again():
    kernel = Forgetful({}, deaf=2)
    await reconcile(lambda: {"a": 1}, kernel)
    assert kernel.state == {"a": 1}


async def test_what_never_arrives_is_named():
    with pytest.raises(VerificationError, match=r"still differs after 3 passes: \+ a 1"):
        await reconcile(lambda: {"a": 1}, Forgetful({}, deaf=9))


async def test_the_desired_state_may_move_while_we_work():
    wanted = iter([{"a": 1}, {"a": 2}, {"a": 2}])
    kernel = Obedient({})
    await reconcile(lambda: next(wanted), kernel)
    assert kernel.state == {"a": 2}


def test_a_long_difference_is_shortened():
    from controlloop.delta import diff  # noqa: PLC0415

    text = describe(diff(dict.fromkeys("abcdefgh", 1), {}))
    assert text.endswith("+ e 1 (and 3 more)")
