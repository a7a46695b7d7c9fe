"""Makes and removes the namespaces and cables of a lab. Nothing ever stands in the root namespace, not for a moment."""

import fcntl
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from lab.enter import inside
from lab.processes import Process, identify, kill
from lab.topology import CLIENT_ADDRESS, POD_NETWORK, SERVICE_NETWORK, Spec, is_namespace_of

SYSCTLS = (
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    # The client's way to services passes one node and comes back out of the same interface. A redirect for each packet
    # would use up what the kernel allows in ICMP errors towards one host, and refusals would not arrive.
    "net.ipv4.conf.all.send_redirects=0",
    "net.ipv4.conf.eth0.send_redirects=0",
    # Pods of one node that meet through a Service must have their packets seen by the rules (Kubernetes asks for it).
    "net.bridge.bridge-nf-call-iptables=1",
    "net.bridge.bridge-nf-call-ip6tables=1",
)

LEARNING_NODES = 20
"""So many find each other by ARP, as real ones do. All that ask each other fill the kernel's table of neighbors, which
has room for 1,024 in all namespaces together, from 33 on; what is set for good always finds room.
"""

SIOCSIFFLAGS, IFF_UP = 0x8914, 1


def ip(*arguments: str, batch: Iterable[str] = ()) -> str:
    lines = "".join(f"{line}\n" for line in batch)
    tail = ["-batch", "-"] if lines else []
    done = subprocess.run(["ip", *arguments, *tail], input=lines, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout


def wire(spec: Spec) -> None:
    ip(batch=[f"netns add {spec.namespace(host)}" for host in spec.hosts])
    ip(batch=cables(spec))
    ip("-n", spec.namespace("switch"), batch=switch_lines(spec))
    for host in spec.attached:
        ip("-n", spec.namespace(host), batch=host_lines(spec, host))
    for _, pod in spec.all_pods:
        with inside(spec.namespace(pod)):
            raise_loopback()
    for node in spec.node_names:
        set_sysctls(spec.namespace(node), SYSCTLS)


def host_lines(spec: Spec, host: str) -> Iterable[str]:
    yield "link set lo up"
    yield f"addr add {spec.attached[host]} dev eth0"
    yield "link set eth0 up"
    if host in spec.node_names:
        # Without a way out a node's own call to a Service fails before any rule is asked, as on a real node.
        yield f"route add default via {CLIENT_ADDRESS}"
        yield from known_nodes(spec, host)
    if host == "client":
        yield from client_routes(spec)


def known_nodes(spec: Spec, host: str) -> Iterable[str]:
    if spec.nodes > LEARNING_NODES:
        for other in spec.node_names:
            if other != host:
                address = spec.attached[other].ip
                yield f"neigh add {address} lladdr {mac(address)} dev eth0"


def mac(address: IPv4Address) -> str:
    """Locally administered, so that no vendor has it."""
    return "02:00:" + address.packed.hex(":")


def raise_loopback() -> None:
    """In the namespace where this thread is; netdevice(7). A hundred pods would wait for a hundred runs of `ip`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def cables(spec: Spec) -> Iterable[str]:
    switch = spec.namespace("switch")
    return [
        f"link add eth0 netns {spec.namespace(host)} address {mac(interface.ip)} type veth "
        f"peer name {host} netns {switch}"
        for host, interface in spec.attached.items()
    ]


def switch_lines(spec: Spec) -> Iterable[str]:
    yield "link add name underlay type bridge"
    yield "link set underlay up"
    for host in spec.attached:
        yield f"link set {host} master underlay up"


def client_routes(spec: Spec) -> Iterable[str]:
    """The client is outside the cluster: it knows one node as the way to pods and services."""
    gateway = spec.attached[spec.node_names[0]].ip
    assert gateway != CLIENT_ADDRESS
    return [f"route add {network} via {gateway}" for network in (POD_NETWORK, SERVICE_NETWORK)]


def set_sysctls(namespace: str, settings: Sequence[str]) -> None:
    with inside(namespace):
        for setting in settings:
            name, _, value = setting.partition("=")
            # A kernel without bridge netfilter has no such setting, and then nothing to switch on.
            with suppress(FileNotFoundError):
                Path("/proc/sys", *name.split(".")).write_text(value)


def existing_namespaces(lab: str) -> list[str]:
    """Those of this lab, and not of another whose name only begins like this one's."""
    names = [line.split()[0] for line in ip("netns", "list").splitlines() if line]
    return [name for name in names if is_namespace_of(lab, name)]


def unwire(lab: str) -> None:
    """Remove every namespace of the lab, with whatever still runs in it; links die with their namespace."""
    names = existing_namespaces(lab)
    kill(processes_in(names))
    # Somebody else may be at it as well: what is gone already is no failure.
    with suppress(RuntimeError):
        ip("-force", batch=[f"netns delete {name}" for name in names])
    left = existing_namespaces(lab)
    if left:
        raise RuntimeError(f"namespaces left behind: {' '.join(left)}")


def processes_in(namespaces: Iterable[str]) -> Iterator[Process]:
    """Whatever runs in one of them, found in one walk over all processes."""
    wanted = set()
    for name in namespaces:
        with suppress(FileNotFoundError):
            wanted.add(Path("/run/netns", name).stat().st_ino)
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "ns/net").stat().st_ino in wanted:
                yield identify(folder.name, "", int(folder.name))
