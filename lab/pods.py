"""Puts pods on a node's bridge through CNI plugins, as a container runtime would (CNI spec 1.0, section 3)."""

import subprocess
from ipaddress import IPv4Address, ip_interface
from pathlib import Path
from typing import Any

import msgspec

from lab.host import Host

PLUGINS = "/usr/lib/cni"
CNI_VERSION = "0.4.0"


class PodError(Exception):
    """A CNI plugin refused; the text is what it said."""


def subnet_file(node: Host) -> dict[str, str]:
    """What netagent wrote for the plugins."""
    text = (node.run_dir / "flannel/subnet.env").read_text()
    return dict(line.split("=", 1) for line in text.splitlines() if line)


def bridge_config(facts: dict[str, str]) -> dict[str, Any]:
    return {
        "cniVersion": CNI_VERSION,
        "name": "pods",
        "type": "bridge",
        "bridge": "cni0",
        "isDefaultGateway": True,
        "hairpinMode": True,
        "mtu": int(facts["FLANNEL_MTU"]),
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(ip_interface(facts["FLANNEL_SUBNET"]).network)}]],
            "dataDir": "/run/cni/networks",
        },
    }


def add_pod(node: Host, pod: Host) -> IPv4Address:
    """Attach a pod to its node; gives back its address."""
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": pod.name,
        "CNI_NETNS": f"/run/netns/{pod.namespace}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": PLUGINS,
    }
    config = msgspec.json.encode(bridge_config(subnet_file(node)))
    plugin = node.popen(
        [str(Path(PLUGINS) / "bridge")], environment=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with plugin:
        answer, _ = plugin.communicate(config, timeout=30)
    result = msgspec.json.decode(answer)
    if plugin.returncode:
        raise PodError(f"bridge plugin for {pod.name} on {node.name}: {result.get('msg')} {result.get('details', '')}")
    return IPv4Address(str(ip_interface(result["ips"][0]["address"]).ip))
