"""Traced packets as a pcapng file, for Wireshark and its kind. Pure.

draft-ietf-opsawg-pcapng: a section, an interface block for each device, an enhanced packet block for each packet, whose
comment says what became of it. Only headers are there: the kernel hands over no more to whoever traces.
"""

import struct
import sys

MAGIC = 0x1A2B3C4D
SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6
RAW_IP = 101  # LINKTYPE_RAW
WHOLE = 0
END, COMMENT, NAME, RESOLUTION, APPLICATION = 0, 1, 2, 9, 4
NANOSECONDS = b"\x09"
ENDIAN = "<" if sys.byteorder == "little" else ">"


class PcapngWriter:
    """Gives back the bytes to append for each packet."""

    def __init__(self) -> None:
        self._interfaces: dict[str, int] = {}

    def start(self) -> bytes:
        body = struct.pack(f"{ENDIAN}IHHq", MAGIC, 1, 0, -1) + _options((APPLICATION, b"netctl trace"))
        return _block(SECTION, body)

    def packet(self, device: str, time_ns: int, raw: bytes, length: int, comment: str) -> bytes:
        """`device` empty: this node sent it; `length` in bytes, of which `raw` has the first ones."""
        before = b"" if device in self._interfaces else self._interface(device)
        head = struct.pack(
            f"{ENDIAN}IIIII",
            self._interfaces[device],
            time_ns >> 32,
            time_ns & 0xFFFFFFFF,
            len(raw),
            max(length, len(raw)),
        )
        return before + _block(PACKET, head + _padded(raw) + _options((COMMENT, comment.encode())))

    def _interface(self, device: str) -> bytes:
        self._interfaces[device] = len(self._interfaces)
        options = _options((NAME, (device or "this node").encode()), (RESOLUTION, NANOSECONDS))
        return _block(INTERFACE, struct.pack(f"{ENDIAN}HxxI", RAW_IP, WHOLE) + options)


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack(f"{ENDIAN}I", len(body) + 12)
    return struct.pack(f"{ENDIAN}I", kind) + length + body + length


def _options(*options: tuple[int, bytes]) -> bytes:
    told = (struct.pack(f"{ENDIAN}HH", code, len(value)) + _padded(value) for code, value in options)
    return b"".join(told) + struct.pack(f"{ENDIAN}HH", END, 0)


def _padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % 4)
