"""Waits for daemons to say READY=1, as systemd would (sd_notify(3))."""

import selectors
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from tempfile import NamedTemporaryFile

from lab.processes import Process, exit_status

MESSAGE_BYTES = 4096
ASK_S = 0.1
"""How long to hear nothing before asking who is still alive."""


class NotStartedError(Exception):
    """A daemon ended, or stayed silent, before it was ready: one line with how, its last words and its log."""


class ReadyListener:
    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        path.chmod(0o666)

    def fileno(self) -> int:
        return self._socket.fileno()

    def is_ready(self) -> bool:
        """Whether the message that has come in says so; for when there is one."""
        return "READY=1" in self._socket.recv(MESSAGE_BYTES).decode().split("\n")

    def close(self) -> None:
        self._socket.close()
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Waited:
    """A daemon that was started."""

    process: Process
    listener: ReadyListener
    log: Path


def wait_for_all(started: Sequence[Waited], timeout_s: float, told: Callable[[int], None] = lambda _: None) -> None:
    """Until each one is ready; `told` hears how many are. NotStartedError as soon as one is gone."""
    due = set(started)
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        for each in started:
            selector.register(each.listener, selectors.EVENT_READ, each)
        while due:
            heard = [key.data for key, _ in selector.select(ASK_S)]
            for each in heard:
                if each.listener.is_ready():
                    selector.unregister(each.listener)
                    # Nobody reads on, and a full socket would hold the daemon up.
                    each.listener.close()
                    due.remove(each)
                    told(len(started) - len(due))
            if not heard:
                give_up_on_the_dead(due)
            if due and time.monotonic() > deadline:
                late = min(due, key=started.index)
                raise NotStartedError(f"{named(late.process)} not ready after {timeout_s:g} s: {tail(late.log)}")


def give_up_on_the_dead(due: Iterable[Waited]) -> None:
    for each in due:
        if not each.process.is_alive():
            raise NotStartedError(f"{named(each.process)} ended{how(each.process)}: {tail(each.log)}")


def named(process: Process) -> str:
    return f"{process.program} on {process.host}"


def how(process: Process) -> str:
    """Empty when nobody knows any more."""
    status = exit_status(process.pid)
    if status is None:
        return ""
    return f" with status {status}" if status >= 0 else f" by {Signals(-status).name}"


def tail(log: Path) -> str:
    """The last line, and where all of them are kept: a lab that does not come up takes its own files away."""
    text = log.read_text(errors="replace")
    with NamedTemporaryFile("w", prefix=f"nodenet-{log.parent.name}-", suffix=f"-{log.name}", delete=False) as kept:
        kept.write(text)
    said = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{said[-1] if said else 'without a word'} (its log: {kept.name})"
