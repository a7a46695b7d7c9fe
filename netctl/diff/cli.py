"""`netctl diff`."""

from pathlib import Path

import click

from netctl.options import FROM, OUTPUT, node_of


@click.command()
@OUTPUT
@FROM
def diff(form: str, bundle: Path | None) -> int:
    """What in the kernel is not as the daemons want it?

    Compares netproxy's rules, and netagent's devices, addresses, routes, neighbors, FDB entries and firewall, object
    by object, each with the Service or peer that it is for. What a daemon repairs within milliseconds is not shown.
    `-` is wanted, `+` is in the kernel.

    Exit code 0: no drift; 1: drift; 3: a daemon does not answer; 5: not allowed.
    """
    from netctl.diff.command import show  # noqa: PLC0415

    return show(node_of(bundle), form)
