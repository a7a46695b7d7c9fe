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
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": pod.name,
        "CNI_NETNS": f"/run/netns/{pod.namespace}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": f"/run/{OUR_PLUGINS}:{PLUGINS}",
    }
    install_plugin(str(node.run_dir / OUR_PLUGINS))
    plugin = node.popen(
        [f"/run/{OUR_PLUGINS}/flannel"], environment=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with plugin:
        answer, _ = plugin.communicate(msgspec.json.encode(CONFIG), timeout=30)
    result = msgspec.json.decode(answer)
    if plugin.returncode:
        raise PodError(f"CNI for {pod.name} on {node.name}: {result.get('msg')} {result.get('details', '')}")
    return IPv4Address(str(ip_interface(result["ips"][0]["address"]).ip))
