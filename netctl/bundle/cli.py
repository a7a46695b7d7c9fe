"""`netctl bundle`."""

from pathlib import Path

import click


@click.command()
@click.argument("path", required=False, metavar="[FILE]", type=click.Path(path_type=Path, dir_okay=False))
def bundle(path: Path | None) -> int:
    """Collect all about this node's network in one archive.

    For whoever is asked for help. FILE must not be there yet; without one it is nodenet-NODE-TIME.tar.gz, here.

    Rules, routes, sockets, sysctls, the daemons' pages and logs, versions; no environment, no connections. Passwords,
    tokens and keys are masked as far as they look like such. Every read command reads it with --from FILE. Needs root.
    """
    from netctl.bundle.command import take  # noqa: PLC0415

    return take(path)
