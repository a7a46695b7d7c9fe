"""Processes that outlive the program that started them: known by id and start time, ended politely, then not."""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec


class Process(msgspec.Struct, frozen=True):
    host: str
    program: str
    pid: int
    started: int
    """Start time in clock ticks since boot (proc(5), field 22): with it an id means one process, not its successor."""

    def is_alive(self) -> bool:
        return start_time(self.pid) == self.started


def start_time(pid: int) -> int | None:
    """None for a process that is gone or only waits to be reaped."""
    fields = stat_fields(pid)
    return None if not fields or fields[0] in "ZX" else int(fields[19])


def exit_status(pid: int) -> int | None:
    """Of a process that waits to be reaped, below 0 for a signal; None: it runs, or is gone."""
    fields = stat_fields(pid)
    return os.waitstatus_to_exitcode(int(fields[49])) if fields and fields[0] == "Z" else None


def stat_fields(pid: int) -> list[str]:
    """From its state on (proc(5), field 3); none of a process that is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The program's name, in parentheses, may hold anything; what follows the last one is numbers.
    return stat.rpartition(")")[2].split()


def identify(host: str, program: str, pid: int) -> Process:
    return Process(host, program, pid, start_time(pid) or 0)


def end(processes: Iterable[Process], grace_s: float = 3.0) -> None:
    """Ask all of them to stop, and kill what is still there after `grace_s`."""
    alive = [process for process in processes if process.is_alive()]
    send(alive, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while alive and time.monotonic() < deadline:
        time.sleep(0.01)
        reap(alive)
        alive = [process for process in alive if process.is_alive()]
    kill(alive)


def kill(processes: Iterable[Process]) -> None:
    """End them at once: they hold nothing that is still wanted."""
    alive = [process for process in processes if process.is_alive()]
    send(alive, signal.SIGKILL)
    for process in alive:
        wait_for_end(process)


def wait_for_end(process: Process, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while process.is_alive() and time.monotonic() < deadline:
        reap([process])
        time.sleep(0.005)


def send(processes: Iterable[Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def reap(processes: Iterable[Process]) -> None:
    """Collect those that are our own children; others belong to init."""
    for process in processes:
        with suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
