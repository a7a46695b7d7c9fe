"""`netctl get NOUN`. The two nouns of the overlay are asked for so often that they stand alone, too."""

from pathlib import Path

import click

from netctl.options import FROM, INSTANCE, OUTPUT, node_of


@click.group()
def get() -> None:
    """What the daemons believe, and what the kernel holds."""


@get.command()
@INSTANCE
@OUTPUT
@FROM
def leases(instance: int, form: str, bundle: Path | None) -> int:
    """Who has which pod subnet, as this node reads the registry.

    Exit code 0: all is well; 1: some are skipped; 3: the agent does not answer.
    """
    return shown(instance, "leases", form, bundle)


@get.command()
@INSTANCE
@OUTPUT
@FROM
def peers(instance: int, form: str, bundle: Path | None) -> int:
    """The other nodes: what leads to them, and whether they answer.

    PATH is `reachable`, `lost`, `mtu` when only small packets arrive, and `silent` for who never answered, as flanneld.

    Exit code 0: all is well; 1: one is lost or not in the kernel; 3: the agent does not answer.
    """
    return shown(instance, "peers", form, bundle)


def shown(instance: int, page: str, form: str, bundle: Path | None) -> int:
    from netagent.instance import Instance  # noqa: PLC0415
    from netctl.get.agent_lists import show  # noqa: PLC0415

    return show(node_of(bundle), Instance(instance).program, page, form)
