"""What the proxy has to know of the node it runs on. Pure.

All of it may change while we run: addresses come and go, a zone label is set, pod CIDRs arrive late.
"""

from dataclasses import dataclass

from controlloop.family import Family, IPAddress, IPNetwork


@dataclass(frozen=True, slots=True)
class Interfaces:
    """Pods are behind these interfaces (kube-proxy: detectLocalMode BridgeInterface and InterfaceNamePrefix)."""

    name: str
    is_prefix: bool = False
    """All interfaces whose names start with `name`."""


PodDetector = IPNetwork | Interfaces | None
"""How to tell that a packet comes from a pod: by its source or by where it came in. None: nobody can tell, and then
nobody is masqueraded for not being a pod."""


@dataclass(frozen=True, slots=True)
class Node:
    """The node we run on, as policy and topology see it."""

    name: str
    zone: str = ""
    addresses: tuple[IPAddress, ...] = ()
    """The node's own addresses in the cluster, the primary one of each family first."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What one family's rules depend on beside Services."""

    family: Family
    pods: PodDetector = None
    node_port_addresses: frozenset[IPAddress] | None = None
    """Where node ports are served; None: at every local address (loopback by `localhost_node_ports` alone)."""
    localhost_node_ports: bool = False
    """Node ports answer at 127.0.0.1 too (IPv4, iptables mode)."""
    service_cidrs: tuple[IPNetwork, ...] = ()
    """ServiceCIDRs: packets to an address in them that no Service has are dropped (nftables mode)."""
    masquerade_all: bool = False
    """Masquerade every connection to a ClusterIP."""
    masquerade_bit: int = 14
    """Which bit of the packet mark says that a connection is to be masqueraded (0 to 31)."""
    tcp_be_liberal: bool = False
    """Conntrack accepts packets out of window, so INVALID ones need not be dropped (iptables mode)."""
    health_check_ports: frozenset[int] = frozenset()
    """Open in the filter table (iptables mode)."""

    @property
    def mark(self) -> int:
        return 1 << self.masquerade_bit
