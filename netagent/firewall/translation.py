"""Whose connections leave the node under the node's address: flannel's six rules, once for both ways to write them.

Pure. A rule is a value; nftables and iptables differ only in how they print it, so their verdicts cannot differ.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from controlloop.address import network
from controlloop.family import Family, IPNetwork

MULTICAST = {Family.V4: ip_network("224.0.0.0/4"), Family.V6: ip_network("ff00::/8")}  # RFC 5771, RFC 4291 2.7

MARK = 0x4000
"""kube-proxy's bit for what it masquerades itself (--iptables-masquerade-bit 14). Other bits belong to others."""


@dataclass(frozen=True, slots=True)
class Match:
    """One end of a connection: inside these addresses, or outside of them."""

    addresses: IPNetwork
    inside: bool = True

    @property
    def is_everything(self) -> bool:
        return self.inside and not self.addresses.prefixlen

    @property
    def is_nothing(self) -> bool:
        return not self.inside and not self.addresses.prefixlen

    def __str__(self) -> str:
        return network(Family.of(self.addresses), int(self.addresses.network_address), self.addresses.prefixlen)


@dataclass(frozen=True, slots=True)
class Translation:
    purpose: str
    source: Match
    destination: Match
    masquerade: bool = False


@dataclass(frozen=True, slots=True)
class Pods:
    """The pod network in one family, and our part of it."""

    network: IPNetwork
    own_subnet: IPNetwork

    @property
    def family(self) -> Family:
        return Family.of(self.network)


def translations(pods: Pods, excluded: Sequence[IPNetwork]) -> list[Translation]:
    """What follows on the rule about the mark; the first that matches decides."""
    return [
        rule for rule in all_translations(pods, excluded) if not (rule.source.is_nothing or rule.destination.is_nothing)
    ]


def all_translations(pods: Pods, excluded: Sequence[IPNetwork]) -> Iterator[Translation]:
    anywhere, others = Match(pods.network), Match(pods.network, inside=False)
    here = Match(pods.own_subnet)
    yield Translation("our pods to pods", here, anywhere)
    yield Translation("pods to our pods", anywhere, here)
    yield Translation("from outside to our pods: they see who calls", others, here)
    for addresses in excluded:
        if Family.of(addresses) is pods.family:
            yield Translation("excluded", anywhere, Match(addresses))
    elsewhere = Match(MULTICAST[pods.family], inside=False)
    yield Translation("pods to the world, but not multicast", anywhere, elsewhere, masquerade=True)
    yield Translation("through us to pods elsewhere: the answer must come back", others, anywhere, masquerade=True)
