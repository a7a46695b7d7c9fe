"""`netctl get NOUN`. The two nouns of the overlay are asked for so often that they stand alone, too."""

from pathlib import Path

import click

from netctl.complete import services as service_names
from netctl.options import FROM, INSTANCE, OUTPUT, node_of

SERVICE = click.argument(
    "service", required=False, default="", metavar="[NAMESPACE/NAME]", shell_complete=service_names
)


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


@get.command()
@SERVICE
@OUTPUT
@FROM
def services(service: str, form: str, bundle: Path | None) -> int:
    """The Services that netproxy serves here, or leaves out.

    STATE is `ok`, `idle` without ready endpoints, `partly` when a part is left out, `skipped` or `quarantined`.

    Exit code 0: all are served; 1: some are left out; 2: there is no such Service; 3: netproxy does not answer.
    """
    from netctl.get.service_lists import show  # noqa: PLC0415

    return show(node_of(bundle), "services", service, form)


@get.command()
@SERVICE
@OUTPUT
@FROM
def endpoints(service: str, form: str, bundle: Path | None) -> int:
    """Who serves each port of the Services, as netproxy sees it.

    SHARE is of new connections to the cluster IP from this node.

    Exit code 0: listed; 2: there is no such Service; 3: netproxy does not answer.
    """
    from netctl.get.service_lists import show  # noqa: PLC0415

    return show(node_of(bundle), "endpoints", service, form)


@get.command()
@click.argument("owner", required=False, default="", metavar="[NAMESPACE/NAME|PEER]", shell_complete=service_names)
@OUTPUT
@FROM
def rules(owner: str, form: str, bundle: Path | None) -> int:
    """The kernel's rules that are ours, each with whom it is for.

    With a Service or a peer's lease, only the rules that it has a part in.

    Exit code 0: listed; 3: a daemon does not answer, so owners are not known; 5: not allowed.
    """
    from netctl.get.rule_list import show  # noqa: PLC0415

    return show(node_of(bundle), owner, form)


@get.command()
@click.argument("name", required=False, default="", metavar="[PEER|SUBNET|DEVICE]")
@OUTPUT
@FROM
def routes(name: str, form: str, bundle: Path | None) -> int:
    """The kernel's routes of the overlays, each with its peer.

    STATE is `ok`, `changed` when it is not as netagent wants it, and `foreign` for routes of others into our devices.

    Exit code 0: all are as wanted; 1: one is changed; 3: an agent does not answer.
    """
    from netctl.get.overlay_lists import show  # noqa: PLC0415

    return show(node_of(bundle), "routes", name, form)


@get.command()
@click.argument("name", required=False, default="", metavar="[PEER|ADDRESS|DEVICE]")
@OUTPUT
@FROM
def fdb(name: str, form: str, bundle: Path | None) -> int:
    """The kernel's FDB entries and neighbors of the overlays.

    A neighbor says which MAC address a peer's device has, an FDB entry at which node it is.

    Exit code 0: all are as wanted; 1: one is changed, or foreign; 3: an agent does not answer.
    """
    from netctl.get.overlay_lists import show  # noqa: PLC0415

    return show(node_of(bundle), "fdb", name, form)


def shown(instance: int, page: str, form: str, bundle: Path | None) -> int:
    from netagent.instance import Instance  # noqa: PLC0415
    from netctl.get.agent_lists import show  # noqa: PLC0415

    return show(node_of(bundle), Instance(instance).program, page, form)
