"""Turns a journey into the path that `netctl explain` would print: steps, verdict, endpoint, masquerade. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from netctl.explain.reasons import Reason
from netctl.explain.walk import Notes, Packet, RouteAnswer, Verdict
from netctl.explain.walk_hooks import NO_WAY, Outcome
from netctl.trace.headers import Headers
from netctl.trace.journeys import Journey, Visit
from netctl.trace.log_messages import LogEvent
from netctl.trace.rule_words import RuleWords
from netctl.trace.trace_messages import TraceEvent

Step = TraceEvent | LogEvent
Look = Callable[[Step, Packet], RuleWords]
"""What a step's rule says; the packet as in `nftables_words`."""
Route = Callable[[Packet], RouteAnswer]
Names = Callable[[int], str]
"""Of interfaces by index."""
Forbids = Callable[[Packet], str]
"""The setting for which this packet is not forwarded; empty: none."""
FATES = {"drop": Verdict.DROP, "reject": Verdict.REJECT}


class Path(NamedTuple):
    start: Packet
    outcome: Outcome
    notes: Notes
    lost: Reason | None
    """Where no rule ended it."""
    rule: str
    """That ended it."""


@dataclass(slots=True)
class Walk:
    """Goes through the steps of a journey, and keeps the chains that it is in, as the kernel's own stack does."""

    look: Look
    packet: Packet
    notes: Notes = field(default_factory=Notes)
    last: RuleWords | None = None
    _jumps: list[tuple[str, int, bool]] = field(default_factory=list)
    """Chain, how many steps there were behind the jump, and whether it is told in any case."""

    def through(self, visit: Visit) -> None:
        self.notes.hook = visit.hook
        behind = moved(self.packet, visit.after) if visit.after else self.packet
        for step in visit.in_order:
            if step.kind == "return" or (isinstance(step, TraceEvent) and step.kind == "rule" and not step.handle):
                continue
            self._return_to(step.chain)
            words = self.look(step, behind)
            behind = behind if words.mark is None else replace(behind, mark=words.mark)
            self._take(words)
        self._return_to("")
        self.packet = behind

    def _take(self, words: RuleWords) -> None:
        if words.does:
            self.notes.step(words.place, words.does, words.why)
        self.last = words
        if words.is_goto and self._jumps:
            # Who returns from there is where this chain would have returned to.
            self._jumps[-1] = (words.jumps_to, *self._jumps[-1][1:])
        elif words.jumps_to:
            self._jumps.append((words.jumps_to, len(self.notes.steps), words.keeps_jump))

    def _return_to(self, chain: str) -> None:
        while self._jumps and self._jumps[-1][0] != chain:
            left, seen, is_kept = self._jumps.pop()
            if not is_kept:
                self.notes.forget_jump(seen, left)


def path(journey: Journey, look: Look, route: Route, name_of: Names, forbids: Forbids) -> Path:
    start = first_packet(journey, name_of)
    walk = Walk(look, start)
    for visit in journey.visits:
        walk.through(visit)
        if visit.hook == "postrouting" and visit.before and visit.after:
            is_other = visit.before.ends.source.address != visit.after.ends.source.address
            walk.packet = replace(walk.packet, masqueraded=walk.packet.masqueraded or is_other)
    packet = replace(walk.packet, goes_out=name_of(journey.visits[-1].goes_out))
    if journey.is_at_end:
        return Path(start, Outcome(1.0, packet, Verdict.ACCEPT, route=route(packet)), walk.notes, None, "")
    if fate := fate_of(walk.last, journey):
        assert walk.last is not None
        return Path(start, Outcome(1.0, packet, fate, walk.last.name), walk.notes, None, walk.last.name)
    known = Path(start, Outcome(1.0, packet, Verdict.DROP), walk.notes, None, "")
    return lost(journey, route(packet), forbids(packet), known)


def first_packet(journey: Journey, name_of: Names) -> Packet:
    ends = journey.start.ends
    return Packet(ends.source.address, ends.to, ends.protocol, came_in=name_of(journey.came_in))


def moved(packet: Packet, seen: Headers) -> Packet:
    """As it is behind a hook. What goes back where it came from was not translated."""
    if seen.ends.to == packet.to:
        return packet
    after = packet.translated(seen.ends.to)
    return replace(after, called=None) if after.called == after.to else after


def fate_of(last: RuleWords | None, journey: Journey) -> Verdict | None:
    """What the last rule did to a packet that did not get to the end of its hook."""
    if last is None or journey.visits[-1].after is not None:
        return None
    return FATES.get(last.does.split(", ")[-1])


def lost(journey: Journey, route: RouteAnswer, forbidden_by: str, known: Path) -> Path:
    """No rule ended it. Between two hooks that is the routing, within one it is what stands there beside the rules."""
    if journey.is_incomplete:
        text = "the kernel lost messages, so nobody saw where it ended"
        return ended(known, "kernel", Verdict.UNKNOWN, Reason("incomplete", text))
    packet, notes = known.outcome.packet, known.notes
    visit = journey.visits[-1]
    if visit.after is None:
        text = f"it did not come out of the hook {visit.hook}, and no rule says so: {beside_rules(journey)}"
        return ended(known, "kernel", Verdict.DROP, Reason("kernel", text))
    notes.hook = "routing"
    if packet.came_in and journey.start.hops_left <= 1:
        return ended(
            known, "routes", Verdict.REJECT, Reason("ttl", "its time to live (or hop limit) ends on this node")
        )
    if forbidden_by:
        text = f"{packet.came_in} forwards nothing ({forbidden_by})"
        return ended(known, "routes", Verdict.DROP, Reason("no-forwarding", text))
    if route.kind in NO_WAY:
        verdict, why = NO_WAY[route.kind]
        return ended(known, "routes", verdict, Reason("no-route", f"{packet.to.address}: {why}"))
    text = f"it was not seen behind {visit.hook}: the kernel's routing did not let it on"
    return ended(known, "routes", Verdict.DROP, Reason("routing", text))


def ended(known: Path, place: str, verdict: Verdict, why: Reason) -> Path:
    known.notes.step(place, verdict.value, why.text)
    outcome = replace(known.outcome, verdict=verdict, why=why.text)
    return known._replace(outcome=outcome, lost=why)


def beside_rules(journey: Journey) -> str:
    steps = journey.visits[-1].steps
    if steps and steps[-1].verdict not in ("accept", "continue"):
        return f"its last verdict is {steps[-1].verdict}"
    return "conntrack refused it, or a program that is no rule"
