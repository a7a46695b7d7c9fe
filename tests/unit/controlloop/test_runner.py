"""When the job runs, and when it does not."""

import asyncio

import pytest
from deadline import PATIENCE_S

from controlloop.errors import UnavailableError
from controlloop.runner import Backoff, Runner


class Job:
    """Records each run's `resync`; fails as often as it is told; can be held in the middle of a run."""

    def __init__(self, failures=0):
        self.runs, self.failures = [], failures
        self.started, self.may_end = asyncio.Event(), asyncio.Event()
        self.may_end.set()

    async def __call__(self, resync):
        self.runs.append(resync)
        self.started.set()
        await self.may_end.wait()
        if self.failures:
            self.failures -= 1
            raise UnavailableError("the kernel is busy")


async def run_until(runner, condition, running=None):
    task = running or asyncio.create_task(runner.run())
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - any turn of the loop may make it true
            await asyncio.sleep(0)
    task.cancel()


def make(job, **options):
    turns = []
    options = {"resync_s": 60.0, **options}
    return Runner(job, turn=lambda: turns.append(1), **options), turns


async def test_the_first_run_looks_at_everything():
    job = Job()
    runner, turns = make(job)
    await run_until(runner, lambda: turns)
    assert job.runs == [True]


@pytest.mark.kube_proxy("6.1-41")
async def test_many_wake_ups_while_the_job_runs_become_one_more_run():
    job = Job()
    job.may_end.clear()
    runner, turns = make(job)
    task = asyncio.create_task(runner.run())
    await job.started.wait()
    for _ in range(5):
        runner.wake()
    job.may_end.set()
    await run_until(runner, lambda: len(turns) == 2, task)
    assert job.runs == [True, False]


@pytest.mark.kube_proxy("6.1-41", "gap 3.9-1")
async def test_a_failed_run_is_repeated_and_then_looks_at_everything():
    job = Job(failures=2)
    runner, _ = make(job)
    await run_until(runner, lambda: len(job.runs) == 3)
    assert job.runs == [True, True, True]


async def test_without_a_wake_up_everything_is_looked_at_again():
    job = Job()
    runner, _ = make(job, resync_s=0.01)
    await run_until(runner, lambda: len(job.runs) == 3)
    assert job.runs == [True, True, True]


async def test_an_idle_runner_shows_signs_of_life():
    job = Job()
    runner, turns = make(job, tick_s=0.01)
    await run_until(runner, lambda: len(turns) >= 3)
    assert job.runs == [True]


async def test_a_fault_of_ours_is_not_retried():
    async def broken(_resync):
        raise KeyError("a bug")

    runner, _ = make(broken)
    with pytest.raises(KeyError):
        await runner.run()


@pytest.mark.kube_proxy("6.1-41")
def test_back_off_doubles_up_to_its_limit_and_starts_over():
    backoff = Backoff(first=0.1, limit=0.5)
    assert [backoff.next() for _ in range(4)] == [0.1, 0.2, 0.4, 0.5]
    backoff.reset()
    assert backoff.next() == 0.1


async def test_a_busy_runner_still_looks_at_everything_in_time():
    """One change every few seconds must not put the resync off for ever."""
    job = Job()
    runner, _ = make(job, resync_s=0.02)

    async def busy(resync):
        await job(resync)
        runner.wake()
        await asyncio.sleep(0)

    runner._job = busy
    await run_until(runner, lambda: job.runs.count(True) == 3)
    assert job.runs.count(False) > 0


async def test_a_busy_runner_shows_signs_of_life():
    job = Job()
    runner, turns = make(job)

    async def busy(resync):
        await job(resync)
        runner.wake()

    runner._job = busy
    await run_until(runner, lambda: len(turns) >= 3)
