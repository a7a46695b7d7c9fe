"""Where a daemon's sockets and files are. Imports next to nothing: every start of netctl passes here."""

import os
from pathlib import Path

RUNTIME_DIRECTORY = Path("/run/nodenet")


def runtime_directory() -> Path:
    """What systemd's RuntimeDirectory= made for us; /run/nodenet for a daemon run by hand, and for netctl.

    A unit with several directories gets them all in one variable, sorted: ours is known by its name.
    """
    given = [Path(path) for path in os.environ.get("RUNTIME_DIRECTORY", "").split(":") if path]
    return next((path for path in given if path.name == RUNTIME_DIRECTORY.name), RUNTIME_DIRECTORY)
