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
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The program's name, in parentheses, may hold anything; what follows the last one is numbers.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


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
