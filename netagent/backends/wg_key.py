"""The node's WireGuard key: made once, kept in a file that only its owner reads, never in this program's words."""

import os
from dataclasses import replace
from pathlib import Path

from controlloop.command import CommandError, run
from controlloop.errors import OperatorError
from netagent.backends.wireguard import Wireguard

KEY_FILE = "/run/flannel/wgkey"
KEY_FILE_VARIABLE = "WIREGUARD_KEY_FILE"


async def with_key(backend: Wireguard) -> Wireguard:
    """The backend with this node's key. OperatorError names the file, or the program, that is not as it must be."""
    path = Path(os.environ.get(KEY_FILE_VARIABLE) or KEY_FILE)
    try:
        private_key = kept(path) or keep(path, await run(["wg", "genkey"]))
        public_key = (await run(["wg", "pubkey"], private_key)).decode().strip()
    except (OSError, CommandError) as error:
        raise OperatorError(f"{KEY_FILE_VARIABLE} {path}: {error}") from error
    return replace(backend, public_key=public_key, key_file=str(path))


def kept(path: Path) -> bytes:
    """Empty when there is no such file yet."""
    return path.read_bytes() if path.exists() else b""


def keep(path: Path, key: bytes) -> bytes:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "wb") as file:  # noqa: PTH123 - the mode from the start
        file.write(key)
    return key
