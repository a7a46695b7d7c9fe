"""Puts the CNI plugin and its network configuration where a container runtime looks for them, each in one step."""

import json
import sys
from pathlib import Path

from controlloop.errors import OperatorError
from netagent.cni import plugin
from netagent.subnet_file import write

NAME = "flannel"

CONFLIST = {
    "name": "cbr0",
    # The first version with CHECK; every bridge plugin since 2019 speaks it.
    "cniVersion": plugin.FIRST_WITH_CHECK,
    "plugins": [
        {"type": NAME, "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


def plugin_text() -> str:
    """The plugin as a program. Without site packages and user settings Python starts in 15 ms."""
    python = Path(sys.executable).resolve()
    return f"#!{python} -IS\n{Path(plugin.__file__).read_text()}"


def install_plugin(folder: str) -> None:
    """OperatorError when the folder cannot be written to."""
    _install("--install-cni", Path(folder) / NAME, plugin_text(), 0o755)


def install_conflist(path: str) -> None:
    """The network named `cbr0`, as flannel's manifest has it. OperatorError when it cannot be written."""
    _install("--install-cni-conf", Path(path), json.dumps(CONFLIST, indent=2) + "\n", 0o644)


def _install(flag: str, path: Path, text: str, mode: int) -> None:
    try:
        write(path, text, mode)
    except OSError as error:
        raise OperatorError(f"{flag} {path}: {error.strerror}") from None
