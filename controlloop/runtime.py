"""Where a daemon's sockets and files are. Imports next to nothing: every start of netctl passes here."""

import os
from pathlib import Path

RUNTIME_DIRECTORY = "/run/nodenet"


def runtime_directory() -> Path:
    """What systemd's RuntimeDirectory= made for us; /run/nodenet for a daemon run by hand, and for netctl."""
    return Path(os.environ.get("RUNTIME_DIRECTORY", RUNTIME_DIRECTORY).partition(":")[0])
