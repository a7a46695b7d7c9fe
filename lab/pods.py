"""Puts pods on a node's bridge as a container runtime would (CNI spec 1.0, section 3): our plugin above Debian's."""

import subprocess
from collections.abc import Sequence
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
    return add_pods([(node, pod)])[pod]


def add_pods(places: Sequence[tuple[Host, Host]]) -> dict[Host, IPv4Address]:
    """Attach (node, pod) pairs all at once; addresses by pod."""
    asked = [(node, pod, ask_plugin(node, pod, "ADD")) for node, pod in places]
    answers = [(pod, answer(node, pod, "ADD", plugin)) for node, pod, plugin in asked]
    return {pod: address_in(result) for pod, result in answers}


def address_in(result: bytes) -> IPv4Address:
    return IPv4Address(str(ip_interface(msgspec.json.decode(result)["ips"][0]["address"]).ip))


def remove_pod(node: Host, pod: Host) -> None:
    """Take its interface away; its address is free for another pod."""
    answer(node, pod, "DEL", ask_plugin(node, pod, "DEL"))


def ask_plugin(node: Host, pod: Host, command: str) -> subprocess.Popen[bytes]:
    """The plugin, with its question; `answer` waits for it."""
    folder = node.run_dir / OUR_PLUGINS
    if not folder.exists():
        install_plugin(str(folder))
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
    assert plugin.stdin is not None
    plugin.stdin.write(msgspec.json.encode(CONFIG))
    plugin.stdin.close()
    plugin.stdin = None  # so that `communicate` only reads
    return plugin


def answer(node: Host, pod: Host, command: str, plugin: subprocess.Popen[bytes]) -> bytes:
    """PodError with what the plugin said when it refused."""
    with plugin:
        said, _ = plugin.communicate(timeout=30)
    if plugin.returncode:
        refusal = msgspec.json.decode(said)
        text = f"{refusal.get('msg')} {refusal.get('details', '')}"
        raise PodError(f"CNI {command} for {pod.name} on {node.name}: {text}")
    return said
