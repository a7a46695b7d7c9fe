"""Whether traffic flows: what agents found by probing, and what was asked from this node. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netctl.findings.finding import Finding
from netctl.findings.host_facts import Frontend

LOSSY = 0.9
"""Answers of a way that loses more than by accident: at least 2 of 20."""


@dataclass(frozen=True, slots=True)
class Ping:
    """What came of pings past the overlay, from node to node."""

    answers: bool
    full_bytes: int
    """The largest packet that the way out lets pass."""
    full_answers: bool
    share: float = 1.0
    """Of the small ones, how many were answered: 0 to 1."""


@dataclass(frozen=True, slots=True)
class NetFacts:
    peers: Sequence[Mapping[str, Any]] = ()
    """Items of netagent's page /peers."""
    pings: Mapping[str, Ping] = field(default_factory=dict)
    """By public address."""
    overlay: Mapping[str, bool] = field(default_factory=dict)
    """By a peer's key, whether its end of the overlay answered a ping; only where it has an address of its own."""
    calls: Mapping[Frontend, str] = field(default_factory=dict)
    """ClusterIPs that were called over TCP; empty: connected, else what came instead."""


def judge_net(facts: NetFacts) -> Iterator[Finding]:
    for peer in facts.peers:
        ping = next((facts.pings[ip] for ip in peer["public_ips"] if ip in facts.pings), None)
        yield from judge_peer(peer, ping, is_deaf=facts.overlay.get(peer["key"]) is False)
        if ping and 0 < ping.share <= LOSSY:
            evidence = f"{1 - ping.share:.0%} of the pings past the overlay were not answered"
            yield Finding("NN113", named(peer), evidence, next=f"ping -c 100 -i 0.05 {peer['public_ips'][0]}")
    for frontend, outcome in facts.calls.items():
        if outcome:
            evidence = f"a connection from this node: {outcome}"
            yield Finding("NN210", str(frontend), evidence, next=explain(frontend))


def judge_peer(peer: Mapping[str, Any], ping: Ping | None, *, is_deaf: bool) -> Iterator[Finding]:
    """`is_deaf`: its end of the overlay answers no ping. That finds who never answered a probe, as flanneld."""
    name = named(peer)
    if not peer["programmed"] and not peer["skipped"]:
        yield Finding("NN110", name, "its lease is valid, its route is not in the kernel")
    if peer["lost_since"] or (is_deaf and peer["programmed"]):
        what = (
            "probes through the overlay are not answered any more"
            if peer["lost_since"]
            else "no ping through the overlay is answered"
        )
        evidence = f"{what}; {underlay(ping)}"
        yield Finding("NN104", name, evidence, peer["lost_since"], next_for_lost(peer, ping))
    elif peer["large_lost_since"]:
        evidence = "only small probes through the overlay are answered"
        yield Finding("NN105", name, evidence, peer["large_lost_since"])
    elif ping and ping.answers and not ping.full_answers:
        evidence = f"pings of {ping.full_bytes} bytes, the MTU of our interface, do not arrive there; small ones do"
        yield Finding("NN105", name, evidence, next=f"ping -M do -s {ping.full_bytes - 28} {peer['public_ips'][0]}")


def named(peer: Mapping[str, Any]) -> str:
    return f"{peer['key']} at {', '.join(peer['public_ips']) or 'no address'}"


def underlay(ping: Ping | None) -> str:
    if ping is None:
        return "the underlay was not asked"
    if ping.answers:
        return "the node itself answers a ping, so something on the way, or there, takes the overlay's UDP away"
    return "nor does the node answer a ping past the overlay"


def next_for_lost(peer: Mapping[str, Any], ping: Ping | None) -> str:
    address = next(iter(peer["public_ips"]), "")
    return f"tcpdump -ni any udp and host {address}" if ping and ping.answers else f"ping {address}"


def explain(frontend: Frontend) -> str:
    called = f"[{frontend.address}]" if ":" in frontend.address else frontend.address
    return f"netctl explain {called}:{frontend.port}/{frontend.protocol}"
