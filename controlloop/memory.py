"""Gives back what a pass over everything needed for a moment: two dumps of all objects, parsed."""

import ctypes
import gc
from contextlib import suppress


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
