"""`netctl plan`."""

from pathlib import Path

import click

from netctl.options import FROM, MANIFESTS, OUTPUT, node_of


@click.command()
@MANIFESTS
@click.option("--mode", type=click.Choice(["nftables", "iptables"]), default=None, help="Default: the one it is in.")
@click.option("--delete", "deletes", is_flag=True, help="What if these objects were deleted?")
@OUTPUT
@FROM
def plan(files: tuple[Path, ...], mode: str | None, deletes: bool, form: str, bundle: Path | None) -> int:  # noqa: FBT001
    """What manifests would change on this node; nothing is applied.

    Adds the Services, EndpointSlices and Endpoints to those that netproxy has, or puts them in the place of those of
    the same name. `+` comes, `-` goes, `~` changes, `!` would be refused or left out, `?` cannot be foreseen.

    Exit code 0: all would be served; 1: some would not; 2: a manifest cannot be read; 3: netproxy does not answer.
    """
    from netctl.plan.command import show  # noqa: PLC0415

    return show(node_of(bundle), files, mode or "", form, deletes=deletes)
