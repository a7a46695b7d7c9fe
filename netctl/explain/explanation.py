"""What `netctl explain` says of one packet, as a document and as text. Pure."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlloop.printable import escaped
from netctl.colour import Paint, State, plain
from netctl.explain.reasons import Reason, reason, service_named, why_masqueraded
from netctl.explain.walk import Notes, Packet, Place, Step, Verdict
from netctl.explain.walk_hooks import Outcome
from netctl.explain.walk_overlay import Hop
from netctl.output import API_VERSION

WIDTH = 80
DIGITS = 6
NO_SERVICE = "none has this address, port and protocol"


@dataclass(frozen=True, slots=True)
class Backend:
    """One place where the connection may end."""

    place: Place
    probability: float
    masquerade: bool
    masquerade_why: str
    hop: Hop
    reason: Reason | None = None
    """Why it does not arrive there; None: it does."""


@dataclass(slots=True)
class Explanation:
    packet: Packet
    """As it starts."""
    outcomes: Sequence[Outcome]
    notes: Notes
    hops: Mapping[Outcome, Hop]
    frontend: Mapping[str, Any] | None = None
    """As netproxy describes it; None: nobody has it, or netproxy does not answer."""
    live: bool = True
    """Whether netproxy answers."""
    verified: Mapping[str, Any] | None = None
    """What came of one real packet; None: nobody sent one."""

    @property
    def steps(self) -> list[Step]:
        return list(self.notes.steps)

    @property
    def warnings(self) -> list[str]:
        """What somebody else's rules do to it, or may do, and what may be wrong behind this node."""
        found = [f"{each.hook}: {each.place}, which is not ours: {each.does}" for each in self.steps
                 if each.decides and not each.is_ours and each.place != "routes"]  # fmt: skip
        doubts = dict.fromkeys(self.hops[outcome].doubt for outcome in self.outcomes)
        return [*found, *self.notes.warnings, *filter(None, doubts)]

    @property
    def verdict(self) -> str:
        """`dnat`, `pass`, `reject` or `drop`: what most connections meet."""
        shares: dict[str, float] = {}
        for outcome in self.outcomes:
            name = verdict_of(outcome)
            shares[name] = shares.get(name, 0.0) + outcome.share
        return max(shares, key=lambda name: shares[name])

    @property
    def service(self) -> str | None:
        return self.frontend["service"] if self.frontend else service_named(self.notes.steps)

    @property
    def arrives(self) -> bool:
        return all(outcome.verdict is Verdict.ACCEPT and not self.hops[outcome].problem for outcome in self.outcomes)

    @property
    def backends(self) -> list[Backend]:
        found = [self._backend(outcome) for outcome in self.outcomes if outcome.packet.called]
        return sorted(found, key=lambda each: (-each.probability, each.place.address.packed, each.place.port))

    def _backend(self, outcome: Outcome) -> Backend:
        packet = outcome.packet
        lost = None if outcome.verdict is Verdict.ACCEPT else reason(outcome, self.steps)
        why = why_masqueraded(packet, self.steps)
        return Backend(packet.to, outcome.share, packet.masqueraded, why, self.hops[outcome], lost)

    @property
    def masquerade(self) -> bool:
        return any(outcome.packet.masqueraded for outcome in self.outcomes)

    @property
    def reason(self) -> Reason | None:
        """Why it does not arrive, where it does not."""
        lost = [outcome for outcome in self.outcomes if outcome.verdict is not Verdict.ACCEPT]
        return reason(lost[0], self.steps) if lost else None

    @property
    def masquerade_why(self) -> str:
        masqueraded = [each for each in self.outcomes if each.packet.masqueraded]
        return why_masqueraded((masqueraded or list(self.outcomes))[0].packet, self.steps)

    def document(self) -> dict[str, Any]:
        packet = self.packet
        return {
            "apiVersion": API_VERSION,
            "kind": "Explanation",
            "source": str(packet.source),
            "from": packet.came_in or "this node",
            "destination": str(packet.to.address),
            "port": packet.to.port,
            "protocol": packet.protocol,
            "live": self.live,
            "verdict": self.verdict,
            "reason": self.reason._asdict() if self.reason else None,
            "service": self.service,
            "scope": self.frontend["scope"] if self.frontend else None,
            "balance": self.frontend["balance"] if self.frontend else None,
            "backends": [backend_document(each) for each in self.backends],
            "masquerade": self.masquerade,
            "masquerade_why": self.masquerade_why,
            "steps": [
                {"hook": each.hook, "where": each.place, "does": each.does, "why": each.why} for each in self.steps
            ],
            "warnings": self.warnings,
            "overlay": {str(each.packet.to.address): self.hops[each].document() for each in self.outcomes},
            **({"verified": self.verified} if self.verified is not None else {}),
        }

    # -- as text --------------------------------------------------------------------------------------------------

    def render(self, width: int = WIDTH, paint: Paint = plain) -> str:
        """In lines of at most so many columns, but for words that are longer."""
        head, *rest = (escaped(part) for line in self._lines() for part in wrapped(*line, width))
        return "\n".join([self._painted(head, paint), *rest])

    def _painted(self, head: str, paint: Paint) -> str:
        """With the verdict, where it still stands in the first line, green when all of it arrives."""
        word = f": {self.verdict}"
        state = State.OK if self.arrives else State.FAILED
        return head.replace(word, f": {paint(self.verdict, state)}", 1)

    def _lines(self) -> Iterator[tuple[str, str]]:
        came_in = self.packet.came_in
        yield "", self._head()
        yield titled("comes", f"in through {came_in}" if came_in else "from this node")
        if self.reason:
            yield titled("lost" if self.verdict in ("dnat", "pass") else self.verdict, self.reason.text)
        if not self.live:
            yield titled("live", "no: netproxy does not answer; this is what the kernel has")
        elif self.verdict == "pass":
            yield titled("service", f"{self._of()}, but no rule here translates it" if self.service else NO_SERVICE)
        if self.masquerade or self.verdict == "dnat":
            yield titled("masquerade", self._masquerade_text())
        yield from (titled("warning", warning) for warning in self.warnings)
        for step in self.steps:
            yield titled(step.hook, f"{step.place}: {step.does}{f' ({step.why})' if step.why else ''}")
        yield from self._ends()
        if self.verified:
            yield titled("verified", self.verified["text"])

    def _head(self) -> str:
        packet = self.packet
        return f"{packet.source} -> {packet.to}/{packet.protocol}: {self.verdict}{self._owner()}"

    def _owner(self) -> str:
        return f" by {self._of()}" if self.service and self.verdict != "pass" else ""

    def _of(self) -> str:
        return f"{self.service}, {self.frontend['scope']}" if self.frontend else str(self.service)

    def _masquerade_text(self) -> str:
        masqueraded = {outcome.packet.masqueraded for outcome in self.outcomes}
        answer = "towards one endpoint" if len(masqueraded) > 1 else "yes" if self.masquerade else "no"
        return f"{answer}: {self.masquerade_why}"

    def _ends(self) -> Iterator[tuple[str, str]]:
        for each in self.backends:
            yield f"  {each.probability:>10.1%}   ", f"{each.place}{', masqueraded' if each.masquerade else ''}"
            yield titled("", each.reason.text if each.reason else each.hop.text)
        if self.verdict == "pass":
            yield from (titled("way", self.hops[outcome].text) for outcome in self.outcomes)


def titled(title: str, text: str) -> tuple[str, str]:
    return f"  {title:12} ", text


def wrapped(lead: str, text: str, width: int) -> Iterable[str]:
    wrapper = textwrap.TextWrapper(width, initial_indent=lead, subsequent_indent=" " * len(lead))
    wrapper.break_long_words = wrapper.break_on_hyphens = False
    return wrapper.wrap(text)


def verdict_of(outcome: Outcome) -> str:
    if outcome.verdict is Verdict.ACCEPT:
        return "dnat" if outcome.packet.called else "pass"
    return str(outcome.verdict.value)


def backend_document(backend: Backend) -> dict[str, Any]:
    return {
        "address": str(backend.place.address),
        "port": backend.place.port,
        "probability": round(backend.probability, DIGITS),
        "masquerade": backend.masquerade,
        "reason": backend.reason._asdict() if backend.reason else None,
    }
