"""Who is in a lab and how they are called: pure naming and addressing.

    10.10.0.0/16   underlay: one switch, nodes .0.1 upwards, etcd .255.1, the client .255.2, who is also the nodes'
                   default gateway: all the world they know, and it forwards nothing
    10.244.0.0/16  pods: netagent leases a /24 to each node
    10.96.0.0/12   services: they exist in rules only

All of it lives in network namespaces without any link to the machine's own network.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from types import MappingProxyType

import msgspec

UNDERLAY = IPv4Network("10.10.0.0/16")
POD_NETWORK = IPv4Network("10.244.0.0/16")
SERVICE_NETWORK = IPv4Network("10.96.0.0/12")
ETCD_ADDRESS = IPv4Address("10.10.255.1")
CLIENT_ADDRESS = IPv4Address("10.10.255.2")
ETCD_URL = f"http://{ETCD_ADDRESS}:2379"

MAX_NODES = 250
NAMESPACE_PREFIX = "nodenet"
HOST = re.compile(r"switch|etcd|client|node-[0-9]+|pod-[0-9]+-[0-9]+")


class Spec(msgspec.Struct, frozen=True):
    name: str
    nodes: int = 3
    pods_per_node: int = 2
    mode: str = "iptables"
    balance: str = "random"

    @property
    def node_names(self) -> list[str]:
        return [f"node-{number}" for number in range(1, self.nodes + 1)]

    def pod_names(self, node: str) -> list[str]:
        return [f"pod-{node.removeprefix('node-')}-{number}" for number in range(1, self.pods_per_node + 1)]

    @property
    def all_pods(self) -> Iterator[tuple[str, str]]:
        """(node, pod) of every pod."""
        return ((node, pod) for node in self.node_names for pod in self.pod_names(node))

    @property
    def attached(self) -> Mapping[str, IPv4Interface]:
        """Every host on the underlay's switch, with its address there."""
        return underlay_addresses(tuple(self.node_names))

    @property
    def hosts(self) -> tuple[str, ...]:
        return host_names(self)

    def namespace(self, host: str) -> str:
        return f"{NAMESPACE_PREFIX}-{self.name}-{host}"


# A lab of fifty nodes asks a thousand times while it is built, which without memory would take half a second.


@cache
def host_names(spec: Spec) -> tuple[str, ...]:
    return ("switch", *spec.attached, *(pod for _, pod in spec.all_pods))


@cache
def underlay_addresses(nodes: tuple[str, ...]) -> Mapping[str, IPv4Interface]:
    numbered = {name: IPv4Interface((UNDERLAY[number], 16)) for number, name in enumerate(nodes, start=1)}
    others = {"etcd": IPv4Interface((ETCD_ADDRESS, 16)), "client": IPv4Interface((CLIENT_ADDRESS, 16))}
    return MappingProxyType(numbered | others)


def is_namespace_of(lab: str, name: str) -> bool:
    prefix = f"{NAMESPACE_PREFIX}-{lab}-"
    return name.startswith(prefix) and HOST.fullmatch(name.removeprefix(prefix)) is not None
