"""What is wrong, as values: each finding has a code, whose meaning and remedy stand in the catalogue. Pure."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from controlloop.printable import escaped
from netctl.colour import Paint, State, plain
from netctl.findings.catalogue import CATALOGUE, Entry

WIDTH = 80
MOST_OF_A_CODE = 3
"""Shown one by one."""


@dataclass(frozen=True, slots=True)
class Finding:
    code: str
    """A key of the catalogue."""
    object: str
    """What it is about: a peer, a Service, a device, a setting."""
    evidence: str
    """What was seen, with the value. May hold foreign text."""
    since: float | None = None
    """Seconds since the epoch; None when nobody knows."""
    next: str = ""
    """The command to look with; empty: the one of the catalogue."""

    @property
    def entry(self) -> Entry:
        return CATALOGUE[self.code]

    @property
    def document(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "title": self.entry.title,
            "object": self.object,
            "evidence": self.evidence,
            "since": self.since,
            "action": self.entry.action,
            "next": self.next or self.entry.look,
        }


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """By code: what stands below comes after what stands on it."""
    return sorted(set(findings), key=lambda each: (each.code, each.object, each.evidence))


def verdict(findings: Sequence[Finding], paint: Paint = plain) -> str:
    return paint(counted(len(findings), "finding"), State.FAILED) if findings else paint("ok", State.OK)


def render(findings: Iterable[Finding], now: float, *, wide: bool = False, paint: Paint = plain) -> Iterator[str]:
    """Lines for people, 80 columns wide where no single word is longer. `wide` shows every single one, and what to do.

    Otherwise one cause that meets many objects must not push the other findings off the screen.
    """
    for code, of_code in groupby(findings, key=lambda each: each.code):
        group = list(of_code)
        shown = group if wide or len(group) <= MOST_OF_A_CODE + 1 else group[:MOST_OF_A_CODE]
        for finding in shown:
            yield from render_one(finding, now, paint, wide=wide)
        if rest := len(group) - len(shown):
            yield from marked(f"{code} {CATALOGUE[code].title}: {rest} more; -o wide shows them", paint)


def render_one(finding: Finding, now: float, paint: Paint, *, wide: bool) -> Iterator[str]:
    since = "" if finding.since is None else f", for {age(max(0.0, now - finding.since))}"
    yield from marked(f"{finding.code} {finding.entry.title}: {escaped(finding.object)}{since}", paint)
    yield from wrapped("      ", escaped(finding.evidence))
    if wide:
        yield from wrapped("      do: ", finding.entry.action)
    yield f"      next: {escaped(finding.next or finding.entry.look)}"


def marked(title: str, paint: Paint) -> Iterator[str]:
    first, *rest = wrapped("  ! ", title)
    yield first.replace("!", paint("!", State.FAILED), 1)
    yield from rest


def footer(findings: Sequence[Finding]) -> str:
    """How to go on; empty when nothing is wrong."""
    return f"`netctl help {findings[0].code}` says what it means and what to do." if findings else ""


def explained(code: str) -> str:
    """The whole entry of the catalogue, for a terminal."""
    entry = CATALOGUE[code]
    parts = (("", entry.meaning), ("What to do: ", entry.action), ("Look: ", entry.look))
    body = ("\n".join(wrapped("", lead + text)) for lead, text in parts)
    return "\n\n".join([f"{code} {entry.title}", *body])


def wrapped(lead: str, text: str) -> list[str]:
    """No word is cut: an address or a name must stay whole to be copied."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=lead,
        subsequent_indent=" " * len(lead),
        break_long_words=False,
        break_on_hyphens=False,
    )


def counted(number: int, noun: str) -> str:
    """1 peer, 2 peers."""
    return f"{number} {noun}{'s' * (number != 1)}"


def age(seconds: float) -> str:
    """3m12s, 2h05m, 4d03h."""
    whole = int(seconds)
    for unit, size, below, smaller in ("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // smaller:02d}{below}"
    return f"{whole}s"
