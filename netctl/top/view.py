"""What `netctl top` shows: a table for a screen of any size, or for a file. Pure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from controlloop.printable import escaped
from netctl.top.usage import EndpointUse, ServicePort, ServiceUse, Usage

SORTS: dict[str, Callable[[ServiceUse], tuple[object, ...]]] = {
    "connections": lambda use: (-use.connections_per_s, -sum(use.history), str(use.owner)),
    "bytes": lambda use: (-(use.bytes_per_s or 0.0), -use.connections_per_s, str(use.owner)),
}
NARROW, LEAST = 60, 20
"""Below so many columns there are fewer; below LEAST, nothing is made to fit."""
TAKEN, TAKEN_NARROW = 32, 19
"""Columns of the numbers."""
TITLES = ("CONN/S", "BYTES/S", "ENDPOINTS")
BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", ".:-=+*#@"
SPARKS = 20
HINT = "c connections  b bytes  n name  / filter  enter endpoints  q quit"


@dataclass(slots=True)
class Choice:
    """What the reader wants to see."""

    sort: str = "connections"
    text: str = ""
    """A part of the name."""
    open: set[ServicePort] = field(default_factory=set)
    """With their endpoints."""
    cursor: int = 0
    typing: bool = False
    """A filter is being typed."""


@dataclass(frozen=True, slots=True)
class Look:
    width: int = 80
    height: int = 24
    is_unicode: bool = True
    tail: int = SPARKS
    """Columns for the last one."""

    @property
    def name_room(self) -> int:
        taken = TAKEN_NARROW if self.width < NARROW else TAKEN + self.tail
        return max(8, self.width - taken)


def chosen(usage: Usage, choice: Choice) -> list[ServicePort]:
    """In order. Most Services of many are idle: they follow those that are used, by name, and cost next to nothing."""
    named = usage.by_name(choice.text)
    if choice.sort == "name":
        return [owner for _, owner in named]
    used = usage.used
    busy = sorted((usage.service(owner) for _, owner in named if owner in used), key=SORTS[choice.sort])
    return [*(use.owner for use in busy), *(owner for _, owner in named if owner not in used)]


def screen(usage: Usage, choice: Choice, look: Look, title: str, notes: Sequence[str]) -> list[str]:
    """Exactly as many lines as the screen has. The line at the cursor is marked, and in sight."""
    owners = chosen(usage, choice)
    choice.cursor = max(0, min(choice.cursor, len(owners) - 1))
    top = [title, *notes, heading(look)]
    hint = f"filter: {choice.text}_  (enter: done, escape: all)" if choice.typing else HINT
    room = max(1, look.height - len(top) - 1)
    body = list(body_lines(usage, owners, choice, look, room))
    lines = [*top, *body, *[""] * (room - len(body)), hint]
    return [fitted(line, look) for line in lines[: max(1, look.height)]]


def body_lines(usage: Usage, owners: Sequence[ServicePort], choice: Choice, look: Look, room: int) -> Iterator[str]:
    first = max(0, choice.cursor - room + 1)
    # An open Service is seen with its endpoints as far as they fit.
    while first < choice.cursor and height(usage, owners[first : choice.cursor + 1], choice) > room:
        first += 1
    left = room
    for index, owner in enumerate(owners[first : first + room], first):
        mark = ">" if index == choice.cursor else " "
        for line in (service_line(usage.service(owner), look, mark), *opened(usage, owner, choice, look)):
            if not left:
                return
            left -= 1
            yield line
    if not owners:
        yield f"no Service{f' with {escaped(choice.text)!r} in its name' if choice.text else ''}"


def height(usage: Usage, owners: Iterable[ServicePort], choice: Choice) -> int:
    return sum(1 + (len(usage.endpoints(owner)) if owner in choice.open else 0) for owner in owners)


def opened(usage: Usage, owner: ServicePort, choice: Choice, look: Look) -> Iterator[str]:
    if owner in choice.open:
        yield from (endpoint_line(each, look) for each in usage.endpoints(owner))


def heading(look: Look) -> str:
    return columns("  SERVICE", *TITLES, "LAST SAMPLES", look)


def service_line(use: ServiceUse, look: Look, mark: str = " ") -> str:
    bars = sparkline(use.history[-SPARKS:], look)
    return columns(
        f"{mark} {escaped(str(use.owner))}",
        human(use.connections_per_s),
        human(use.bytes_per_s),
        str(use.endpoints),
        bars,
        look,
    )


def endpoint_line(use: EndpointUse, look: Look) -> str:
    share = "-" if use.share is None else percent(use.share)
    wanted = "" if use.ideal_share is None else f"ideal {percent(use.ideal_share)}"
    return columns(
        f"    {escaped(use.endpoint)}", human(use.connections_per_s), human(use.bytes_per_s), share, wanted, look
    )


def columns(name: str, connections: str, size: str, part: str, tail: str, look: Look) -> str:  # noqa: PLR0913, PLR0917 - one for each column
    room = look.name_room
    head = name if len(name) <= room else f"{name[: room - 1]}{'…' if look.is_unicode else '~'}"
    line = f"{head:{room}} {connections:>8}"
    if look.width < NARROW:
        return f"{line} {part[:9]:>9}".rstrip()
    return f"{line} {size:>8} {part:>10}  {tail}".rstrip()


def sparkline(rates: Sequence[float], look: Look) -> str:
    """The highest is a full bar; nothing at all is a space."""
    bars, most = BARS if look.is_unicode else ASCII_BARS, max(rates, default=0.0)
    return "".join(bars[min(len(bars) - 1, int(rate / most * len(bars)))] if rate else " " for rate in rates)


def human(number: float | None) -> str:
    """Three digits: 0, 4.2, 12.3, 123, 1.2k, 3.4M. A dash for what nobody counts."""
    if number is None:
        return "-"
    for unit in ("", "k", "M", "G"):
        if number < 999.5:  # what would be rounded to four digits
            return f"{number:.0f}{unit}" if number >= 99.95 or not number else f"{number:.1f}{unit}"
        number /= 1000
    return f"{number:.1f}T"


def percent(share: float) -> str:
    return f"{share * 100:.1f}%"


def fitted(line: str, look: Look) -> str:
    if len(line) <= look.width or look.width < LEAST:
        return line[: look.width]
    return f"{line[: look.width - 1]}{'…' if look.is_unicode else '~'}"


def report(usage: Usage, owners: Sequence[ServicePort], *, wide: bool) -> list[str]:
    """One sample with all endpoints, to be kept. Names are cut for 80 columns, unless it is `wide`."""
    tail = len("ideal 100.0%")
    longest = max((len(str(owner)) for owner in owners), default=0) + 2
    look = Look(width=max(80, longest + TAKEN + tail) if wide else 80, tail=tail)
    lines = [columns("  SERVICE", *TITLES, "", look)]
    for owner in owners:
        lines.append(service_line(replace(usage.service(owner), history=()), look))
        lines += [endpoint_line(each, look) for each in usage.endpoints(owner)]
    return lines
