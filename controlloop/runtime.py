"""Where a daemon's sockets and files are. Imports next to nothing: every start of netctl passes here."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controlloop.errors import OperatorError

RUNTIME_DIRECTORY = Path("/run/nodenet")


def runtime_directory() -> Path:
    """What systemd's RuntimeDirectory= made for us; /run/nodenet for a daemon run by hand, and for netctl.

    A unit with several directories gets them all in one variable, sorted: ours is known by its name.
    """
    given = [Path(path) for path in os.environ.get("RUNTIME_DIRECTORY", "").split(":") if path]
    return next((path for path in given if path.name == RUNTIME_DIRECTORY.name), RUNTIME_DIRECTORY)


@contextmanager
def only_one(program: str, advice: str = "") -> Iterator[None]:
    """Hold this program's place on the node. OperatorError when another one has it: two writers would undo each
    other, and the second would take the first one's status socket. `advice`: for who wants both.
    """
    path = runtime_directory() / f"{program}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except PermissionError as error:
        raise OperatorError(f"{path}: {error.strerror}; this user needs a runtime directory of its own") from error
    with lock as place:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OperatorError(f"{path}: another {program} runs here{advice}") from None
        yield
