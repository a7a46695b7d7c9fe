"""Which test holds which case of the anchors: markers in the tests, and the tables in docs/ that are written from them.

A test that holds a case says so with `@pytest.mark.flannel("20", "A10")` or `@pytest.mark.kube_proxy("6.1-18")`. Run
`python tests/cases.py` to write the last column of both tables anew; tests/unit/test_cases.py checks that they agree.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
TABLES = {
    "flannel": TESTS.parent / "docs/flannel-cases.md",
    "kube_proxy": TESTS.parent / "docs/kube-proxy-cases.md",
}
ROW = re.compile(r"\| (?P<case>[^|]+) \| (?P<what>[^|]+) \| (?P<where>[^|]*) \|")
"""Case, what it is about, and where it is tested, or why it is not."""
HEADINGS = {"case", "fault", "---"}

Places = dict[str, set[str]]
"""Files below tests/ by case."""


def marked(source: str) -> Iterator[tuple[str, str]]:
    """(marker, case) for each case that a marker in this source names."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).removeprefix("pytest.mark.")
        if name in TABLES:
            for argument in node.args:
                yield name, ast.literal_eval(argument)


def places() -> dict[str, Places]:
    """By marker: where each case is tested."""
    found: dict[str, Places] = {marker: defaultdict(set) for marker in TABLES}
    for path in sorted(TESTS.rglob("test_*.py")):
        for marker, case in marked(path.read_text()):
            found[marker][case].add(str(path.relative_to(TESTS)))
    return found


def rows(text: str) -> dict[str, str]:
    """What the last column of a table says, by case."""
    matches = filter(None, map(ROW.fullmatch, text.splitlines()))
    return {match["case"]: match["where"] for match in matches if match["case"] not in HEADINGS}


def written(text: str, tested: Places) -> str:
    """The table with the tests of each case; what stands in the row of a case without tests is left as it is."""
    return "".join(f"{_row(line, tested)}\n" for line in text.splitlines())


def _row(line: str, tested: Places) -> str:
    match = ROW.fullmatch(line)
    if match is None or not tested.get(match["case"]):
        return line
    files = ", ".join(f"`{file}`" for file in sorted(tested[match["case"]]))
    return f"| {match['case']} | {match['what']} | {files} |"


def main() -> None:
    for marker, tested in places().items():
        table = TABLES[marker]
        table.write_text(written(table.read_text(), tested))


if __name__ == "__main__":
    main()
