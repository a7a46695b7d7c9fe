"""Metrics as Prometheus reads them: text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).

Pure. A daemon keeps its own counts and makes families of them when somebody asks; nothing is registered and nothing
costs anything meanwhile.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# What the format escapes in a label's value, and in a help text.
LABEL = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})


@dataclass(frozen=True, slots=True)
class Sample:
    value: float
    labels: Mapping[str, str]
    suffix: str = ""
    """Behind the family's name; a histogram has samples of three names."""


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """One name with its samples. Names of counters end in `_total`, units stand before that (`_seconds`)."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    samples: tuple[Sample, ...]

    def lines(self) -> Iterator[str]:
        yield f"# HELP {self.name} {self.help.translate(HELP)}"
        yield f"# TYPE {self.name} {self.type}"
        for sample in self.samples:
            yield f"{self.name}{sample.suffix}{label_text(sample.labels)} {number_text(sample.value)}"


def gauge(name: str, text: str, value: float, **labels: str) -> MetricFamily:
    return MetricFamily(name, "gauge", text, (Sample(value, labels),))


def counter(name: str, text: str, value: float) -> MetricFamily:
    return MetricFamily(name, "counter", text, (Sample(value, {}),))


def by_label(
    kind: Literal["counter", "gauge"], name: str, text: str, label: str, values: Mapping[str, float]
) -> MetricFamily:
    """One sample for each value of one label; who calls keeps their number small."""
    return MetricFamily(name, kind, text, tuple(Sample(value, {label: key}) for key, value in values.items()))


class Histogram:
    """Counts observations in buckets."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """Upper bounds, ascending; what is above the last one is counted, too."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def samples(self, **labels: str) -> Iterator[Sample]:
        bounds = [*map(number_text, self._bounds), "+Inf"]
        for bound, count in zip(bounds, accumulate(self._counts), strict=True):
            yield Sample(count, {**labels, "le": bound}, "_bucket")
        yield Sample(self._sum, labels, "_sum")
        yield Sample(sum(self._counts), labels, "_count")


def exposition(families: Iterable[MetricFamily]) -> bytes:
    return "".join(f"{line}\n" for family in families for line in family.lines()).encode()


def label_text(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(LABEL)}"' for name, value in labels.items()) + "}"


def number_text(value: float) -> str:
    """Whole numbers without a point; Go's parser reads the rest as Python writes it, infinity and NaN included."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
