"""A fresh network namespace around a test: whatever the test does to the kernel happens there."""

import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
numbers = itertools.count()


def setns(path: str) -> None:
    with open(path) as handle:  # noqa: PTH123
        if libc.setns(handle.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {path}")


@contextmanager
def inside(name: str) -> Iterator[None]:
    """What this thread opens or starts meanwhile belongs to a named namespace."""
    with open("/proc/self/ns/net") as home:  # noqa: PTH123
        setns(f"/run/netns/{name}")
        try:
            yield
        finally:
            libc.setns(home.fileno(), CLONE_NEWNET)


@contextmanager
def fresh_namespace() -> Iterator[str]:
    """Move this thread into a namespace of its own, with lo up; the name lets other programs join it."""
    name = f"nodenet-test-{os.getpid()}-{next(numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with inside(name):
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
