"""`netctl bundle`."""

from pathlib import Path

import click


@click.command()
@click.option(
    "-o",
    "--output",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to; it must not be there yet. [default: nodenet-NODE-TIME.tar.gz, here]",
)
def bundle(path: Path | None) -> int:
    """Collect what this node's network is made of in one archive, for whoever is asked for help.

    Rules, routes, sockets, sysctls, the daemons' pages and logs, versions; no environment, no connections. Passwords,
    tokens and keys are masked as far as they look like such. Every read command reads it with --from FILE. Needs root.
    """
    from netctl.bundle.command import take  # noqa: PLC0415

    return take(path)
