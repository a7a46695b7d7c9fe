"""`netctl graph`: asks nodes, and writes the picture in the form that was asked for."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from controlloop.errors import OperatorError
from netctl.exit_codes import FINDING, OK, UNREACHABLE
from netctl.graph.answers import NodeAnswers
from netctl.graph.document import network_graph
from netctl.graph.page import page
from netctl.graph.picture import picture
from netctl.graph.text_forms import dot, mermaid

Document = Mapping[str, Any]


def shipped(name: str) -> str:
    return (files("netctl.graph") / name).read_text()


def as_html(document: Document) -> str:
    style = shipped("figures/figures.css") + shipped("page.css")
    return page(document, shipped("page.html"), style, shipped("page.js"))


RENDER: Mapping[str, Callable[[Document], str]] = {
    "html": as_html,
    "svg": lambda document: picture(document, shipped("figures/figures.css")),
    "dot": dot,
    "mermaid": mermaid,
    "json": lambda document: json.dumps(document, indent=2),
}


def draw(answers: Sequence[NodeAnswers], form: str, file: Path | None) -> int:
    """Exit code 0: no findings; 1: some; 3: a daemon does not answer, so something is missing."""
    document = network_graph(answers)
    write(RENDER[form](document) + "\n", form, file)
    if any(each.silent for each in answers):
        return UNREACHABLE
    return FINDING if document["findings"] else OK


def write(text: str, form: str, file: Path | None) -> None:
    if file is None:
        if form in ("html", "svg") and sys.stdout.isatty():
            raise OperatorError(f"graph: a terminal shows no {form}; add --output-file nodenet.{form}")
        sys.stdout.write(text)
        return
    try:
        file.write_text(text)
    except OSError as error:
        raise OperatorError(f"--output-file {file}: {error.strerror}") from None
