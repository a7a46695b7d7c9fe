"""Puts the CNI plugin and its network configuration where a container runtime looks for them, each in one step."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controlloop.errors import OperatorError
from netagent.cni import plugin
from netagent.instance import Instance
from netagent.subnet_file import write

NAME = "flannel"


def conflist(instance: Instance, subnet_file: str) -> dict[str, Any]:
    """The network `cbr0`, as flannel's manifest has it. That of an agent with a number has its own name and bridge, and
    its own place for what pods were given: a runtime that tidies up one network must not see the other's.
    """
    number = instance.number
    network: dict[str, Any] = {"type": NAME, "delegate": {"hairpinMode": True, "isDefaultGateway": True}}
    if subnet_file != plugin.SUBNET_FILE:
        network["subnetFile"] = subnet_file
    if number:
        network["dataDir"] = f"{plugin.DATA_DIR}{number}"
        network["delegate"]["bridge"] = f"cni{number}"
    return {
        "name": f"cbr{number}",
        # The first version with CHECK; every bridge plugin since 2019 speaks it.
        "cniVersion": plugin.FIRST_WITH_CHECK,
        "plugins": [network, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }


def plugin_text() -> str:
    """The plugin as a program. Without site packages and user settings Python starts in 15 ms."""
    python = Path(sys.executable).resolve()
    return f"#!{python} -IS\n{Path(plugin.__file__).read_text()}"


def install_plugin(folder: str) -> None:
    """OperatorError when the folder cannot be written to."""
    _install("--install-cni", Path(folder) / NAME, plugin_text(), 0o755)


def install_conflist(path: str, network: Mapping[str, Any]) -> None:
    """OperatorError when it cannot be written."""
    _install("--install-cni-conf", Path(path), json.dumps(network, indent=2) + "\n", 0o644)


def _install(flag: str, path: Path, text: str, mode: int) -> None:
    try:
        write(path, text, mode)
    except OSError as error:
        raise OperatorError(f"{flag} {path}: {error.strerror}") from None
