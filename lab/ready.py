"""Waits for daemons to say READY=1, as systemd would (sd_notify(3))."""

import socket
import time
from pathlib import Path

from lab.processes import Process

MESSAGE_BYTES = 4096


class NotStartedError(Exception):
    """A daemon ended, or stayed silent, before it was ready. The text has the last lines of its log."""


class ReadyListener:
    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        path.chmod(0o666)

    def wait(self, process: Process, log: Path, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if "READY=1" in self._received():
                return
            if not process.is_alive():
                raise NotStartedError(f"{process.program} on {process.host} ended:\n{tail(log)}")
        raise NotStartedError(f"{process.program} on {process.host} not ready after {timeout_s:g} s:\n{tail(log)}")

    def _received(self) -> list[str]:
        self._socket.settimeout(0.1)
        try:
            return self._socket.recv(MESSAGE_BYTES).decode().split("\n")
        except TimeoutError:
            return []

    def close(self) -> None:
        self._socket.close()
        self.path.unlink(missing_ok=True)


def tail(log: Path, lines: int = 8) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
