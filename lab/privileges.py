"""Gives up what root has, as setpriv and systemd do between fork and exec, for a daemon that is forked instead.

`host.as_daemon` says the same of a daemon that is executed.
"""

import ctypes
import os
from collections.abc import Collection
from pathlib import Path

from lab.enter import check, libc

PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 4, 8, 24, 38, 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
NET_ADMIN = 12


class Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class Sets(ctypes.Structure):
    """The lower and the upper 32 bits of each set."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def become_daemon(uid: int, kept: Collection[int] = (NET_ADMIN,)) -> None:
    """Turn this process, which is root's, into one of `uid` with the kept capabilities and no way to get more."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for number in set(range(last + 1)) - set(kept):
        prctl(PR_CAPBSET_DROP, number)
    prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    hold(kept)
    # For the programs that it runs: nft, iptables.
    for number in kept:
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    # As after an exec: its own files below /proc stay its own.
    prctl(PR_SET_DUMPABLE, 1)


def hold(kept: Collection[int]) -> None:
    bits = sum(1 << number for number in kept)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    sets = (Sets * 2)(Sets(low, low, low), Sets(high, high, high))
    check(libc.capset(ctypes.byref(Header(CAPABILITY_VERSION_3, 0)), sets), "capset")


def prctl(option: int, *arguments: int) -> None:
    padded = [*arguments, 0, 0, 0, 0][:4]
    check(libc.prctl(option, *map(ctypes.c_ulong, padded)), f"prctl {option}")
