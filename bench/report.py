"""Figures beside their targets and floors, as tables in docs/performance.md."""

from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"


@dataclass(frozen=True)
class Figure:
    what: str
    value: float
    unit: str
    target: float
    floor: float | None = None
    floor_is: str = ""

    def row(self) -> str:
        floor = "" if self.floor is None else f"{self.floor:.2f} {self.unit}, {self.floor_is}"
        ratio = f"{self.value / self.floor:.1f}" if self.floor and self.floor > 0 else ""
        verdict = "" if self.value <= self.target else " (missed)"
        return (
            f"| {self.what} | {self.value:.2f} {self.unit} | {self.target:g} {self.unit}{verdict} | {floor} | {ratio} |"
        )


def table(head: str, rows: list[str]) -> str:
    columns = head.count("|") - 1
    return "\n".join([head, "|" + "---|" * columns, *rows])


def write(mark: str, text: str) -> None:
    """Between the comments of that name."""
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    head, _, rest = PAGE.read_text().partition(begin)
    PAGE.write_text(f"{head}{begin}\n{text}\n{end}{rest.partition(end)[2]}")
