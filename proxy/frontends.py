"""The waist of the proxy. Kubernetes ends above it; nftables and iptables begin below it.

Pure. A frontend is one (address, protocol, port) that clients connect to, with its endpoints after policy and
topology, and everything a backend has to know to program it.
"""

from dataclasses import dataclass
from enum import Enum

from controlloop.family import Family, IPAddress


class Protocol(Enum):
    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"

    @property
    def number(self) -> int:
        """Assigned by IANA (protocol-numbers)."""
        return {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}[self]


class Balance(Enum):
    RANDOM = "random"
    ROUND_ROBIN = "round-robin"


@dataclass(frozen=True, slots=True, order=True)
class ServiceName:
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class ServicePortName:
    """Which port of which Service; the port's name is empty for an unnamed one."""

    service: ServiceName
    port: str

    def __str__(self) -> str:
        return f"{self.service}:{self.port}" if self.port else str(self.service)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place where a Service is served."""

    address: IPAddress
    port: int
    is_local: bool
    """On this node. An endpoint that does not say where it is counts as local: hairpin must work for it too."""

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Frontend:
    name: ServicePortName
    address: IPAddress
    protocol: Protocol
    port: int
    balance: Balance
    endpoints: tuple[Endpoint, ...]
    """Ordered by (address, port), without duplicates; empty: connections are refused."""

    @property
    def family(self) -> Family:
        return Family.of(self.address)

    @property
    def key(self) -> tuple[IPAddress, Protocol, int]:
        """What no two frontends may share."""
        return (self.address, self.protocol, self.port)
