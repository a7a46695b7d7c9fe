"""`netctl trace`."""

from pathlib import Path
from typing import Any

import click

from netctl.complete import services
from netctl.options import OUTPUT, node_of

PROTOCOLS = ("tcp", "udp", "sctp", "icmp")
MOST_PACKETS = 1000


@click.command()
@click.argument("ends", nargs=-1, metavar="[[SOURCE] DESTINATION]", shell_complete=services)
@click.option("--protocol", type=click.Choice(PROTOCOLS), default=None, help="Only packets of this protocol.")
@click.option(
    "--count", type=click.IntRange(1, MOST_PACKETS), default=10, show_default=True, help="End after so many packets."
)
@click.option("--timeout", metavar="TIME", default="30s", show_default=True, help="End after this time: 5s, 2m.")
@click.option("--without-daemons", is_flag=True, help="Write trace rules also where no daemon of nodenet answers.")
@click.option("-w", "--write", "file", metavar="FILE", type=click.Path(path_type=Path), help="Write a pcapng, too.")
@OUTPUT
def trace(ends: tuple[str, ...], *, without_daemons: bool, **options: Any) -> int:
    """Follow live packets, and say what becomes of each.

    SOURCE is an address or network, a pod of this node, or - for this node itself. DESTINATION is an address or
    network, ADDRESS:PORT, [IPV6]:PORT or NAMESPACE/SERVICE[:PORT], with /udp or /sctp behind it; either may be `any`.
    Rules that this needs are taken away whatever ends it.

    Exit code 0: all that was seen arrived; 1: some was dropped or refused, or how it ended is unknown; 4: no such
    packet came in time; 5: not allowed, or no daemon of nodenet answers here.
    """
    from netctl.trace.command import trace as follow  # noqa: PLC0415
    from netctl.trace.wanted import Wanted  # noqa: PLC0415

    if len(ends) > 2:
        raise click.UsageError(f"trace: {ends[2]!r} is too much; want [SOURCE] DESTINATION")
    source, destination = ("any", "any", *ends)[-2:]
    return follow(Wanted(source, destination, **options), node_of(None), anywhere=without_daemons)
