"""`netctl graph`, and what `netctl lab graph` shares with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from netctl.options import node_of, with_options

FORMS = ("html", "svg", "dot", "mermaid", "json")
DRAWN = (
    click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(FORMS),
        default="html",
        show_default=True,
        help="A page with a filter, a picture, text for Graphviz or Mermaid, or the document itself.",
    ),
    click.option(
        "--output-file",
        "file",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Write it there, and not to stdout.",
    ),
)


def drawn(command: Callable[..., int]) -> Callable[..., Any]:
    """With the options that say how, and whereto."""
    return with_options(DRAWN, command)


@click.command()
@drawn
@click.option(
    "--from",
    "bundles",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Read this bundle of `netctl bundle` in place of the node; several draw their nodes together.",
)
def graph(form: str, file: Path | None, bundles: tuple[Path, ...]) -> int:
    """Draw the overlay and the Services, as this node sees them.

    Nodes, paths and round-trip times, the pod network, where Services lead, and what is wrong: a page in one file.
    Exit code 0: no findings; 1: some; 3: a daemon does not answer.
    """
    from netctl.graph.command import draw  # noqa: PLC0415
    from netctl.graph.reading import read_answers  # noqa: PLC0415

    return draw([read_answers(node_of(bundle)) for bundle in bundles or (None,)], form, file)
