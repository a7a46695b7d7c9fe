"""Lines over the number of Services, both axes logarithmic, as SVG. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 560, 330
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 40, 45
COLOURS = ("#1f6feb", "#d1570f", "#6e40c9", "#8b949e")
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """Decades of a logarithmic axis, over so many pixels."""

    low: int
    high: int
    start: float
    length: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, length: float) -> "Axis":
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        return cls(low, max(high, low + 1), start, length)

    def at(self, value: float) -> float:
        return self.start + self.length * (math.log10(value) - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[float]:
        return [10.0**power for power in range(self.low, self.high + 1)]


def plot(title: str, unit: str, lines: Mapping[str, Points]) -> str:
    """One picture; `lines` by name, each a list of (services, value)."""
    points = [point for line in lines.values() for point in line]
    x = Axis.over([services for services, _ in points], LEFT, WIDTH - LEFT - RIGHT)
    y = Axis.over([value for _, value in points], HEIGHT - BOTTOM, -(HEIGHT - TOP - BOTTOM))
    body = "\n".join((*_frame(x, y, title, unit), *_lines(x, y, lines)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _frame(x: Axis, y: Axis, title: str, unit: str) -> Iterator[str]:
    yield f'<text x="{LEFT}" y="22" font-size="14" font-weight="bold">{escape(title)}</text>'
    for tick in x.ticks:
        at = x.at(tick)
        yield f'<line x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{HEIGHT - BOTTOM}" stroke="#ddd"/>'
        yield f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:,.0f}</text>'
    for tick in y.ticks:
        at = y.at(tick)
        yield f'<line x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{tick:g} {escape(unit)}</text>'
    yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">services</text>'


def _lines(x: Axis, y: Axis, lines: Mapping[str, Points]) -> Iterator[str]:
    for row, (name, points) in enumerate(lines.items()):
        colour = COLOURS[row % len(COLOURS)]
        path = " ".join(f"{x.at(services):.1f},{y.at(value):.1f}" for services, value in points)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for point in path.split():
            cx, _, cy = point.partition(",")
            yield f'<circle cx="{cx}" cy="{cy}" r="3" fill="{colour}"/>'
        at = TOP + 14 + 18 * row
        yield f'<rect x="{WIDTH - RIGHT + 12}" y="{at - 9}" width="10" height="10" fill="{colour}"/>'
        yield f'<text x="{WIDTH - RIGHT + 27}" y="{at}">{escape(name)}</text>'
