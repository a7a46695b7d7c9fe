"""The waist of the proxy. Kubernetes ends above it; nftables and iptables begin below it.

Pure. A frontend is one (address, protocol, port) that clients connect to, with its endpoints after policy and
topology, and everything a backend, conntrack or netctl has to know of it.
"""

from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct

from controlloop.family import Family, IPAddress, IPNetwork

ANY_NODE_ADDRESS: dict[Family, IPAddress] = {Family.V4: IPv4Address(0), Family.V6: IPv6Address(0)}
"""Stands, as in a listening socket, for every address of the node at which node ports are served."""


class Protocol(Enum):
    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"

    # As Family's: it is a part of many keys.
    __hash__ = object.__hash__

    @property
    def number(self) -> int:
        """Assigned by IANA (protocol-numbers)."""
        return {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}[self]


class Balance(Enum):
    """How one endpoint is chosen for a new connection."""

    RANDOM = "random"
    ROUND_ROBIN = "round-robin"
    """Exact: each endpoint of the frontend in turn, on this node."""
    WEIGHTED = "weighted"
    """At random, in proportion to the endpoints' weights."""
    SOURCE_HASH = "source-hash"
    """By the client's address modulo the number of endpoints."""
    CONSISTENT = "consistent"
    """By the client's address through a Maglev table: an endpoint that goes takes few other clients along."""


class Scope(Enum):
    """What kind of address a frontend has; it decides who is masqueraded and which defaults apply."""

    CLUSTER_IP = "ClusterIP"
    EXTERNAL_IP = "ExternalIP"
    LOAD_BALANCER = "LoadBalancer"
    NODE_PORT = "NodePort"


class Masquerade(Enum):
    """Which callers must see answers from this node, and so come from it."""

    UNLESS_POD = "unless the caller is a pod"
    ALWAYS = "always"
    IF_NODE = "if the caller is this node"


class Refusal(Enum):
    """What happens to new connections when nobody serves them."""

    REJECT = "reject"
    DROP = "drop"
    """Endpoints exist, but policy Local excludes them: a load balancer should try another node."""


class ServiceName(Struct, frozen=True, order=True, gc=False):
    """A Struct, as the other small values here: there are tens of thousands, and the collector need not visit them."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ServicePortName(Struct, frozen=True, gc=False):
    """Which port of which Service; the port's name is empty for an unnamed one."""

    service: ServiceName
    port: str

    def __str__(self) -> str:
        return f"{self.service}:{self.port}" if self.port else str(self.service)


class Endpoint(Struct, frozen=True, gc=False):
    """One place where a Service is served."""

    address: IPAddress
    port: int
    is_local: bool
    """On this node. An endpoint that does not say where it is counts as local: hairpin must work for it too."""
    weight: int = 1
    """Share of new connections under Balance.WEIGHTED, 0 to 1000; the other ways to balance ignore it."""

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


class Frontend(Struct, frozen=True, gc=False):
    name: ServicePortName
    address: IPAddress
    """ANY_NODE_ADDRESS of its family for a node port."""
    protocol: Protocol
    port: int
    balance: Balance
    endpoints: tuple[Endpoint, ...]
    """Who serves new connections. Ordered by (address, port), without duplicates."""
    scope: Scope = Scope.CLUSTER_IP
    inside: tuple[Endpoint, ...] | None = None
    """Who serves callers that are pods or this node itself, when that is not everybody's choice: an external address
    under externalTrafficPolicy Local. None: `endpoints` serve everybody."""
    lingering: tuple[Endpoint, ...] = ()
    """Who gets no new connections here and keeps the old ones: endpoints that terminate and still serve, and those
    that policy or topology left out."""
    refusal: Refusal = Refusal.REJECT
    """What happens while `endpoints` is empty, to those whom `inside` does not serve."""
    affinity_s: int = 0
    """A client keeps its endpoint for so long after its last new connection; 0: no affinity."""
    sources: tuple[IPNetwork, ...] = ()
    """Who may connect, all others are dropped; empty: everybody."""
    drain_s: int | None = None
    """TCP flows to an endpoint that is gone are reset after so many seconds; None: they live until they die."""

    @property
    def family(self) -> Family:
        return Family.of(self.address)

    @property
    def key(self) -> tuple[IPAddress, Protocol, int]:
        """What no two frontends may share."""
        return (self.address, self.protocol, self.port)

    @property
    def masquerade(self) -> Masquerade:
        if self.scope is Scope.CLUSTER_IP:
            return Masquerade.UNLESS_POD
        return Masquerade.ALWAYS if self.inside is None else Masquerade.IF_NODE
