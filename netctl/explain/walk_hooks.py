"""Takes the first packet of a connection through all hooks of netfilter, and through routing between them. Pure.

    from a pod or another host    prerouting, routing, then input, or forward and postrouting
    from this node                routing, output, routing again, postrouting; to itself then prerouting and input

What is sent to itself keeps its connection on the way through `lo`, so no chain of type nat sees it twice.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from controlloop.family import Family
from netctl.explain.walk import BaseChain, Branch, Notes, Packet, RouteAnswer, Ruleset, Sight, Verdict, merged

LOOPBACK = "lo"
NO_WAY = {
    "none": (Verdict.REJECT, "no route leads there"),
    "unreachable": (Verdict.REJECT, "an unreachable route leads there"),
    "prohibit": (Verdict.REJECT, "a prohibit route leads there"),
    "blackhole": (Verdict.DROP, "a blackhole route leads there"),
    # ip_error() of the kernel: without ICMP.
    "no-forwarding": (Verdict.DROP, "this node does not forward what comes in there"),
}
FORWARDING = {Family.V4: "net.ipv4.conf.*.forwarding", Family.V6: "net.ipv6.conf.all.forwarding"}
"""IPv6 has it per device, too, but asks the whole node."""
ONLY_INSIDE = "no answer is taken for ::1 from another interface than lo"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One end of the journey."""

    share: float
    packet: Packet
    verdict: Verdict
    """ACCEPT: it arrives, here or on the wire."""
    why: str = ""
    route: RouteAnswer | None = None


Stage = Callable[[Branch, RouteAnswer], Iterator[Outcome]]


class Journey:
    def __init__(self, rulesets: Sequence[Ruleset], sight: Sight, notes: Notes) -> None:
        self._rulesets = rulesets
        self._sight = sight
        self._notes = notes
        self._ended: list[Outcome] = []

    def travel(self, packet: Packet) -> list[Outcome]:
        """All that may become of the packet; the shares sum to 1."""
        first = [Branch(1.0, packet)]
        if packet.came_in:
            first = self._hook("prerouting", first)
            ends = [*self._onward(first, self._from_outside)]
        else:
            ends = [*self._onward(first, self._sent)]
        return _merged([*self._ended, *ends])

    def _sent(self, branch: Branch, first_route: RouteAnswer) -> Iterator[Outcome]:
        packet = branch.packet
        source = packet.source if int(packet.source) else first_route.source or packet.source
        leaving = replace(packet, source=source, goes_out=self._device(first_route))
        for each in self._hook("output", [branch._replace(packet=leaving)]):
            yield from self._onward([each], self._leaves)

    def _leaves(self, branch: Branch, route: RouteAnswer) -> Iterator[Outcome]:
        device = self._device(route)
        out = [branch._replace(packet=replace(branch.packet, goes_out=device))]
        for each in self._hook("postrouting", out):
            if route.kind != "local":
                yield self._on_the_wire(each, route)
                continue
            back = [each._replace(packet=replace(each.packet, came_in=LOOPBACK, goes_out=""))]
            for again in self._hook("prerouting", back, nat=False):
                yield from self._arrives(again, route)

    @staticmethod
    def _on_the_wire(branch: Branch, route: RouteAnswer) -> Outcome:
        packet = branch.packet
        if packet.source.is_loopback and packet.source.version == 6:
            # Nothing like route_localnet: the answer is translated back to ::1, and ip6_input drops it.
            return Outcome(branch.share, packet, Verdict.DROP, f"it leaves, but {ONLY_INSIDE}", route)
        return Outcome(branch.share, packet, Verdict.ACCEPT, route=route)

    def _from_outside(self, branch: Branch, route: RouteAnswer) -> Iterator[Outcome]:
        if route.kind == "local":
            yield from self._arrives(branch, route)
            return
        passing = [branch._replace(packet=replace(branch.packet, goes_out=route.device))]
        for each in self._hook("postrouting", self._hook("forward", passing)):
            yield Outcome(each.share, each.packet, Verdict.ACCEPT, route=route)

    def _arrives(self, branch: Branch, route: RouteAnswer) -> Iterator[Outcome]:
        for each in self._hook("input", [branch]):
            yield Outcome(each.share, each.packet, Verdict.ACCEPT, route=route)

    def _onward(self, branches: Sequence[Branch], then: Stage) -> Iterator[Outcome]:
        """Routes each of them, and lets `then` go on with those for which there is a way."""
        for branch in branches:
            packet = branch.packet
            source = packet.source if int(packet.source) else None
            route = self._sight.route(packet.to.address, source, packet.came_in, packet.mark)
            if route.kind in NO_WAY:
                verdict, why = NO_WAY[route.kind]
                if packet.called and not packet.came_in:
                    # ip_route_me_harder fails, and the sender hears nothing.
                    verdict = Verdict.DROP
                if packet.source.is_loopback:
                    why = f"{packet.source} may not leave this node (see net.ipv4.conf.*.route_localnet)"
                if route.kind == "no-forwarding":
                    why = f"{why} (see {FORWARDING[packet.family]})"
                self._notes.hook = "routing"
                self._notes.step("routes", verdict.value, f"{packet.to.address}: {why}")
                yield Outcome(branch.share, packet, verdict, f"{packet.to.address}: {why}", route)
            else:
                yield from then(branch, route)

    @staticmethod
    def _device(route: RouteAnswer) -> str:
        return LOOPBACK if route.kind == "local" else route.device

    # -- one hook -------------------------------------------------------------------------------------------------

    def _hook(self, name: str, branches: Sequence[Branch], *, nat: bool = True) -> list[Branch]:
        """Those that pass; the others have ended."""
        self._notes.hook = name
        chains = [chain for rules in self._rulesets for chain in rules.base_chains(name)]
        waiting = list(branches)
        for chain in sorted(chains, key=lambda each: (each.priority, each.own_priority)):
            if chain.is_nat and not nat:
                continue
            waiting = merged(after for branch in waiting for after in self._through(chain, branch))
        return waiting

    def _through(self, chain: BaseChain, branch: Branch) -> Iterator[Branch]:
        if chain.is_nat and self._is_settled(branch.packet):
            yield branch
            return
        for end in chain.run(branch.packet, self._notes):
            share = branch.share * end.share
            if end.verdict is not None and end.verdict.is_final:
                self._ended.append(Outcome(share, end.packet, end.verdict, end.why))
            else:
                yield Branch(share, end.packet)

    def _is_settled(self, packet: Packet) -> bool:
        """Of chains of type nat the first one that translates is the last one asked."""
        is_source = self._notes.hook in ("postrouting", "input")
        return packet.masqueraded if is_source else packet.called is not None


def _merged(outcomes: Collection[Outcome]) -> list[Outcome]:
    shares: dict[Outcome, float] = {}
    for outcome in outcomes:
        key = replace(outcome, share=0.0, packet=replace(outcome.packet, member_of=frozenset()))
        shares[key] = shares.get(key, 0.0) + outcome.share
    return [replace(outcome, share=share) for outcome, share in shares.items()]
