"""What we tell systemd, over the datagram socket it names in NOTIFY_SOCKET (sd_notify(3)). Silent without one."""

import os
import socket
from contextlib import suppress

# How much longer a start may take after each sign of life: a store that is away is waited for, a hang is not.
START_EXTENSION_S = 30


class Notifier:
    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        # A leading @ names a socket in the abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """A sign of life: for the watchdog once we are ready, and before that for the time a start may take."""
        self._send(f"WATCHDOG=1\nEXTEND_TIMEOUT_USEC={START_EXTENSION_S * 1_000_000}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # A supervisor that went away must not take the data path's keeper with it.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(message.encode(), self._address)
