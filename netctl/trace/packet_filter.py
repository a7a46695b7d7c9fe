"""Which packets are traced: the words of a command line as matches of nftables. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from controlloop.errors import OperatorError
from controlloop.family import Family, IPNetwork

ICMP = {Family.V4: "icmp", Family.V6: "icmpv6"}
PROTOCOLS = ("tcp", "udp", "sctp", "icmp")


@dataclass(frozen=True, slots=True)
class Called:
    """Where packets go that are to be traced."""

    network: IPNetwork | None = None
    """None: any address, of this node alone when `is_node_port`."""
    port: int = 0
    """0: any."""
    protocol: str = ""
    """Empty: any."""
    is_node_port: bool = False


@dataclass(frozen=True, slots=True)
class PacketFilter:
    source: IPNetwork | None = None
    is_from_node: bool = False
    """Only what this node itself sends."""
    called: Sequence[Called] = (Called(),)

    @property
    def matches(self) -> list[str]:
        """A packet that one of them matches is traced; empty text matches all."""
        return [" ".join(self._words(each)) for each in self.called]

    def _words(self, called: Called) -> Iterator[str]:
        source = self.source
        if source is not None:
            yield f"{Family.of(source).nft} saddr {source}"
        if called.network is not None:
            yield f"{Family.of(called.network).nft} daddr {called.network}"
        if called.is_node_port:
            yield "fib daddr type local"
        if called.protocol == "icmp":
            yield "meta l4proto { icmp, icmpv6 }"
        elif called.protocol:
            yield f"meta l4proto {called.protocol}"
        elif called.port:
            yield "meta l4proto { tcp, udp, sctp }"
        if called.port:
            yield f"th dport {called.port}"


def read_network(text: str) -> IPNetwork | None:
    """An address stands for the network of it alone; None: it is neither."""
    try:
        return ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None


def with_protocol(called: Called, protocol: str) -> Called:
    """As an option says it; OperatorError where the words before said otherwise."""
    if protocol and called.protocol not in ("", protocol):
        raise OperatorError(f"trace: --protocol={protocol}, but the destination says {called.protocol}")
    if protocol == "icmp" and called.port:
        raise OperatorError(f"trace: --protocol=icmp has no ports, but the destination says {called.port}")
    return Called(called.network, called.port, protocol or called.protocol, called.is_node_port)
