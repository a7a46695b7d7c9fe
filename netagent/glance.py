"""Whether a WireGuard device is still as it was, asked of wireguard-go over its own socket: no program is run for it.

A glance says nothing but that; what a device knows is read, and changed, with `wg`. The kernel's driver has no such
socket. The answer holds the device's private key, so nothing is kept of it but hashes.
"""

import asyncio
import re
import socket
from pathlib import Path

SOCKETS = Path("/var/run/wireguard")
REQUEST, END = b"get=1\n\n", b"\nerrno=0\n\n"  # wireguard.com/xplatform
PEER = b"public_key="
CHUNK = 256 * 1024
TIMEOUT_S = 1.0

MOVING = re.compile(rb"^(?:last_handshake_time_n?sec|[rt]x_bytes)=\d+\n", re.MULTILINE)
"""What goes on by itself while packets flow."""


class Glances:
    def __init__(self) -> None:
        self._known: dict[str, dict[int, int]] = {}
        """By device: hashes of the answer's parts, each with that of what stays in it. Most parts are as last time."""

    async def at(self, device: str) -> int | None:
        """A hash of the device and its peers, in whatever order they come; None when nobody answers for it."""
        try:
            answer = await ask(device)
        except OSError:
            self._known.pop(device, None)
            return None
        before, now = self._known.get(device, {}), {}
        for part in answer.split(PEER):
            number = hash(part)
            now[number] = before.get(number) or hash(MOVING.sub(b"", part))
        self._known[device] = now
        return hash(frozenset(now.values()))


async def ask(device: str) -> bytes:
    """All that wireguard-go says of a device; OSError when it says nothing, or not all of it in time."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as link:
        link.setblocking(False)
        async with asyncio.timeout(TIMEOUT_S):
            await loop.sock_connect(link, str(SOCKETS / f"{device}.sock"))
            await loop.sock_sendall(link, REQUEST)
            answer = bytearray()
            while not answer.endswith(END):
                part = await loop.sock_recv(link, CHUNK)
                if not part:
                    raise ConnectionError(f"{device}: the answer breaks off")
                answer += part
    return bytes(answer[: -len(END)]) + b"\n"
