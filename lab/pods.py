"""Puts pods on a node's bridge as a container runtime would (CNI spec 1.0, section 3): our plugin above Debian's."""

import subprocess
from ipaddress import IPv4Address, ip_interface

import msgspec

from lab.host import Host
from netagent.cni.install import install_plugin

PLUGINS = "/usr/lib/cni"
OUR_PLUGINS = "cni/bin"
"""Below the node's own /run."""

CONFIG = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "type": "flannel",
    "dataDir": "/run/cni/flannel",
    "ipam": {"dataDir": "/run/cni/networks"},
    # The pods' own addresses are to be seen on other nodes; the bridge plugin would hide them.
    "delegate": {"bridge": "cni0", "isDefaultGateway": True, "hairpinMode": True, "ipMasq": False},
}


class PodError(Exception):
    """A CNI plugin refused; the text is what it said."""


def add_pod(node: Host, pod: Host) -> IPv4Address:
    """Attach a pod to its node; gives back its address."""
    install_plugin(str(node.run_dir / OUR_PLUGINS))
    result = msgspec.json.decode(call_plugin(node, pod, "ADD"))
    return IPv4Address(str(ip_interface(result["ips"][0]["address"]).ip))


def remove_pod(node: Host, pod: Host) -> None:
    """Take its interface away; its address is free for another pod."""
    call_plugin(node, pod, "DEL")


def call_plugin(node: Host, pod: Host, command: str) -> bytes:
    """PodError with what the plugin said when it refused."""
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": pod.name,
        "CNI_NETNS": f"/run/netns/{pod.namespace}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": f"/run/{OUR_PLUGINS}:{PLUGINS}",
    }
    plugin = node.popen(
        [f"/run/{OUR_PLUGINS}/flannel"], environment=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with plugin:
        answer, _ = plugin.communicate(msgspec.json.encode(CONFIG), timeout=30)
    if plugin.returncode:
        said = msgspec.json.decode(answer)
        raise PodError(f"CNI {command} for {pod.name} on {node.name}: {said.get('msg')} {said.get('details', '')}")
    return bytes(answer)
