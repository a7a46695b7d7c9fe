"""Checksum offload of a device, through the ioctl that `ethtool -K DEVICE tx on|off` uses (linux/ethtool.h)."""

import fcntl
import socket
from collections.abc import Iterable
from ctypes import Structure, addressof, c_uint32
from struct import Struct

from controlloop.logs import Log

log = Log("netagent")

SIOCETHTOOL = 0x8946
ETHTOOL_GTXCSUM = 0x16
ETHTOOL_STXCSUM = 0x17

IFREQ = Struct("16sP16x")  # struct ifreq of 64-bit kernels: the name, and a pointer in the union


class EthtoolValue(Structure):
    _fields_ = (("command", c_uint32), ("value", c_uint32))


class ChecksumsOff:
    """Keeps it off on these devices, also when they are made anew."""

    def __init__(self, devices: Iterable[str]) -> None:
        self._devices = tuple(devices)
        self._failed: dict[str, str] = {}

    def settle(self) -> None:
        for device in self._devices:
            try:
                if tx_checksum_off(device):
                    log.info("checksum offload off", device=device)
                self._failed.pop(device, None)
            except OSError as error:
                if self._failed.get(device) != str(error):
                    log.warning("checksum offload stays on", flag="--tx-checksum-off", device=device, reason=error)
                self._failed[device] = str(error)


def tx_checksum(device: str) -> bool:
    """Whether the device leaves checksums to whatever comes behind it. OSError when it does not exist."""
    return bool(ethtool(device, ETHTOOL_GTXCSUM, 0))


def tx_checksum_off(device: str) -> bool:
    """Let the kernel compute checksums before packets enter the device; True when that is a change.

    Needs CAP_NET_ADMIN. Segmentation offload ends with it. OSError: there is no such device, or it cannot do without.
    """
    if not tx_checksum(device):
        return False
    ethtool(device, ETHTOOL_STXCSUM, 0)
    return True


def ethtool(device: str, command: int, value: int) -> int:
    argument = EthtoolValue(command, value)
    request = bytearray(IFREQ.pack(device.encode(), addressof(argument)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)
    return int(argument.value)
