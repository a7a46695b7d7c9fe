"""Keeps a daemon as small as what it remembers: a pass over everything needs much more for a moment."""

import ctypes
import gc
from contextlib import suppress

M_MMAP_THRESHOLD = -3  # malloc.h; mallopt(3)
LARGE_BYTES = 128 * 1024


def map_large_blocks() -> None:
    """Have each large block mapped by itself for good, so that the system has it back when it is freed.

    glibc begins like that, but takes what is freed once as small from then on: tables of thousands of objects then
    leave holes in its heap, of 5 MB with 5,000 peers.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def give_back() -> None:
    """Return free memory to the system, and let later collections skip what stays for good.

    Takes 50 ms with 100,000 objects: for after a full pass, never for after a single change.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    # glibc keeps what was freed; other C libraries have no such call, and no such habit.
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
