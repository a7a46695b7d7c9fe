"""`netctl top`."""

import sys

import click

from netctl.options import OUTPUT, node_of

SORT_WORDS = ("connections", "bytes", "name")
"""On the screen each is chosen by its first letter."""


@click.command()
@click.argument("text", default="", metavar="[SERVICE]")
@click.option("--once", "samples", type=int, flag_value=1, help="One sample, printed: as --count 1.")
@click.option("--count", "samples", type=click.IntRange(1), help="End after so many samples.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between samples.",
)
@click.option("--sort", type=click.Choice(SORT_WORDS), default="connections", show_default=True, help="Most first.")
@OUTPUT
def top(text: str, form: str, sort: str, samples: int | None, interval_s: float) -> int:
    """Who uses which Service, and how is it shared out?

    SERVICE is a part of a name. New connections, bytes, and each endpoint's share beside its ideal one. On a terminal a
    live screen; elsewhere one table, or line of JSON, for each sample.

    Connections are those that conntrack tells of, in every mode; established ones are not counted again. Bytes need the
    sysctl net.netfilter.nf_conntrack_acct, which this command does not set. Exit code 3: netproxy does not answer;
    5: not allowed.
    """
    from netctl.top.command import Request, top  # noqa: PLC0415
    from netctl.top.view import Choice  # noqa: PLC0415

    on_screen = form in ("table", "wide") and samples != 1 and sys.stdin.isatty() and sys.stdout.isatty()
    return top(node_of(None), Request(Choice(sort, text), form, interval_s, samples, on_screen))
