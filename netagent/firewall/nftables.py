"""Our nftables table in one family: what it should hold.

Pure. The rules are constant; what varies is the set `peers`, so one peer costs one element:

    postrouting: which connections are masqueraded. It comes after everything at the usual priority, as flanneld's
        jump at the end of POSTROUTING comes after kube-proxy's
    forward: accepts what pods send and receive. It only says so: no table can overrule a drop in another one
    input: VXLAN packets from whoever is not in `peers` are dropped. The network identifier tells those of another
        overlay on the same port, which are not ours to judge
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from controlloop.address import host
from controlloop.delta import Delta, Ledger
from controlloop.family import Family, IPAddress
from controlloop.nft.state import Chain, Container, Hook, Key, Rule, Value, labelled
from netagent.firewall.translation import MARK, Match, Pods, Translation

PEERS = "peers"
ADDRESS_TYPE = {Family.V4: "ipv4_addr", Family.V6: "ipv6_addr"}
FILTER, AFTER_SRCNAT = 0, 101

VNI_FIELD = "@th,96,24"
"""RFC 7348: behind 8 bytes of UDP header and 4 of flags."""


class Tunnel(NamedTuple):
    """Which VXLAN packets are ours."""

    port: int
    vni: int


def postrouting(pods: Pods, rules: Collection[Translation], *, fully_random: bool) -> tuple[Key, Chain]:
    masquerade = "masquerade fully-random" if fully_random else "masquerade"
    marked = labelled("kube-proxy masquerades it", f"meta mark & {MARK:#x} == {MARK:#x} return")
    return Key("chain", "postrouting"), Chain(
        Hook("nat", "postrouting", AFTER_SRCNAT),
        (marked, *(translation_rule(pods.family, rule, masquerade) for rule in rules)),
    )


def translation_rule(family: Family, rule: Translation, masquerade: str) -> Rule:
    verdict = masquerade if rule.masquerade else "return"
    return labelled(
        rule.purpose,
        f"{match(family, 'saddr', rule.source)}{match(family, 'daddr', rule.destination)}{verdict}",
    )


def match(family: Family, field: str, wanted: Match) -> str:
    """With a space behind it; nothing for what matches everything, which nft takes for an error."""
    if wanted.is_everything:
        return ""
    return f"{family.nft} {field} {'' if wanted.inside else '!= '}{wanted} "


def forward(pods: Pods) -> tuple[Key, Chain]:
    anywhere = Match(pods.network)
    accepted = (
        labelled("from pods", f"{match(pods.family, 'saddr', anywhere)}accept"),
        labelled("to pods", f"{match(pods.family, 'daddr', anywhere)}accept"),
    )
    return Key("chain", "forward"), Chain(Hook("filter", "forward", FILTER), accepted)


def gate(family: Family, tunnel: Tunnel) -> Iterator[tuple[Key, Value]]:
    """What is too short to tell whose it is, is dropped too: the first fragment over IPv6 may be, and the rest would
    be put together behind this hook (ip6_input, Linux 6.18).
    """
    packet = f"udp dport {tunnel.port}"
    rules = (
        labelled("VXLAN of another overlay", f"{packet} {VNI_FIELD} != {tunnel.vni} accept"),
        labelled("VXLAN from no peer of ours", f"{packet} {family.nft} saddr != @{PEERS} drop"),
    )
    yield Key("container", PEERS), Container("set", ADDRESS_TYPE[family], f"type {ADDRESS_TYPE[family]}")
    yield Key("chain", "input"), Chain(Hook("filter", "input", FILTER), rules)


class TablePlan:
    """The desired state of one family's table, as rules and peers change."""

    def __init__(self, family: Family) -> None:
        self.constant: Mapping[Key, Value] = {}
        self._family = family
        self._ledger: Ledger[str | None, Key, Value] = Ledger()

    @property
    def objects(self) -> Mapping[Key, Value]:
        return self._ledger.objects

    def owned(self) -> Iterable[tuple[str | None, Sequence[Key]]]:
        """Which objects each peer wants now, and (None) which are there for all."""
        return self._ledger.owned().items()

    def replace_constant(self, constant: Mapping[Key, Value], delta: Delta[Key, Value]) -> None:
        """Let these be all objects but the peers."""
        self.constant = constant
        self._ledger.replace(None, constant, delta)

    def replace_peer(self, name: str, addresses: Collection[IPAddress], delta: Delta[Key, Value]) -> None:
        """Let these, of this family, be all addresses of one peer. Two peers may have one address."""
        texts = (host(self._family, int(each)) for each in addresses if Family.of(each) is self._family)
        self._ledger.replace(name, {Key("element", PEERS, text): "" for text in texts}, delta)
