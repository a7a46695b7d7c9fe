"""What became of one traced packet, in the words and with the fields of `netctl explain`. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from netctl.explain.explanation import Explanation, titled
from netctl.explain.reasons import Reason, reason
from netctl.explain.walk import Place, Verdict

NOT_OF_ONE_PACKET = ("apiVersion", "kind", "backends", "balance", "verified")


@dataclass(slots=True)
class Happened(Explanation):
    """An explanation whose one outcome is what happened."""

    time: str = ""
    """Of day, in UTC, as of RFC 3339."""
    source_port: int = 0
    state: str = ""
    """Of its connection: `new`, `established`..."""
    length: int = 0
    """Bytes."""
    lost: Reason | None = None
    """Where no rule was it."""
    rule: str = ""
    """That ended it, as whoever wrote it would find it."""
    likely: tuple[str, ...] = field(default=())
    """Reasons that the kernel gave at that time for dropping packets, this one or others."""

    @property
    def reason(self) -> Reason | None:
        outcome = self.outcomes[0]
        if self.lost or outcome.verdict is Verdict.ACCEPT:
            return self.lost
        return reason(outcome, self.steps)

    @property
    def endpoint(self) -> Place | None:
        """Where it was translated to."""
        packet = self.outcomes[0].packet
        return packet.to if packet.called else None

    @property
    def name(self) -> str:
        return f"service/{self.service}" if self.service else self.verdict

    def document(self) -> dict[str, Any]:
        told = {key: value for key, value in Explanation.document(self).items() if key not in NOT_OF_ONE_PACKET}
        (way,) = told.pop("overlay").values()
        place = self.endpoint
        return {
            "time": self.time,
            "source_port": self.source_port,
            "state": self.state or None,
            "bytes": self.length,
            **told,
            "arrives": self.arrives,
            "endpoint": {"address": str(place.address), "port": place.port} if place else None,
            "rule": self.rule or None,
            "likely": list(self.likely),
            "way": way,
        }

    @property
    def sentence(self) -> str:
        """One line, for a capture file."""
        said = [f"{self.verdict} to {self.endpoint}" if self.endpoint else self.verdict]
        said += [f"by {self.service}"] if self.service else []
        said += ["masqueraded"] if self.masquerade else []
        said += [self.reason.text] if self.reason else []
        said += [f"rule: {self.rule}"] if self.rule else []
        return "; ".join(said)

    # -- as text --------------------------------------------------------------------------------------------------

    def _head(self) -> str:
        packet = self.packet
        source = Place(packet.source, self.source_port)
        ends = f"{source} -> {packet.to}" if packet.to.port else f"{packet.source} -> {packet.to.address}"
        where = f" to {self.endpoint}" if self.verdict == "dnat" else ""
        owner = self._owner()
        if self.verdict in ("drop", "reject", "unknown"):
            # It is not the Service that does that.
            owner = owner.replace(" by ", ", for ", 1)
        return f"{self.time[11:23]} {ends}/{packet.protocol}: {self.verdict}{where}{owner}"

    def _ends(self) -> Iterator[tuple[str, str]]:
        if self.state and self.state != "new":
            yield titled("connection", f"{self.state}: rules of type nat saw its first packet only")
        if self.rule:
            yield titled("rule", self.rule)
        if self.likely:
            yield titled("likely", f"the kernel dropped a packet then: {', '.join(self.likely)}")
        if self.verdict in ("dnat", "pass"):
            yield titled("way", self.hops[self.outcomes[0]].text)


def summary(packets: list[Happened], messages_lost: int) -> Mapping[str, Any]:
    counts = dict.fromkeys(("dnat", "pass", "reject", "drop", "unknown"), 0)
    for each in packets:
        counts[each.verdict] += 1
    arrived = sum(each.arrives for each in packets)
    return {"packets": len(packets), "arrived": arrived, "verdicts": counts, "messages_lost": messages_lost}


def summary_text(found: Mapping[str, Any]) -> str:
    several = "packet" if found["packets"] == 1 else "packets"
    counts = ", ".join(f"{count} {verdict}" for verdict, count in found["verdicts"].items() if count)
    missing = found["packets"] - found["arrived"] - found["verdicts"]["unknown"]
    text = f"{found['packets']} {several} traced{f': {counts}' if counts else ''}"
    if missing:
        text += f"; {missing} did not arrive"
    if found["messages_lost"]:
        text += f"; the kernel lost messages {found['messages_lost']} times, so steps may be missing"
    return text
