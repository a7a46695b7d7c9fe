"""The command line. Each command imports what it needs when it runs, so that --help is quick."""

import sys
from pathlib import Path

import click

from controlloop import __version__
from controlloop.flags import run_command
from controlloop.runtime import runtime_directory
from netagent.instance import LIMIT, Instance
from netctl.lab import lab
from netctl.output import FORMATS

ENDPOINTS = click.option(
    "--etcd-endpoints",
    metavar="URL[,URL]",
    envvar="NODENET_ETCD_ENDPOINTS",
    default="http://127.0.0.1:2379",
    show_default=True,
    help="Also from NODENET_ETCD_ENDPOINTS.",
)
PREFIX = click.option("--etcd-prefix", metavar="KEY", default="/nodenet", show_default=True)
INSTANCE = click.option(
    "--instance",
    type=click.IntRange(0, LIMIT),
    default=0,
    show_default=True,
    envvar="NODENET_INSTANCE",
    help="Of which of the node's agents; also from NODENET_INSTANCE.",
)
OUTPUT = click.option("-o", "--output", "form", type=click.Choice(FORMATS), default="table", show_default=True)


@click.group()
@click.version_option(__version__, prog_name="netctl")
def netctl() -> None:
    """See what a node's network does, give it Services, and try it in a lab."""


netctl.add_command(lab)


@netctl.command()
@OUTPUT
def status(form: str) -> int:
    """Is this node's network healthy, and if not, where first?

    Exit code 0: all is well; 1: a finding; 3: a daemon does not answer.
    """
    from netctl.status import read_status  # noqa: PLC0415

    found = read_status(runtime_directory())
    if text := found.shown(form):
        click.echo(text)
    return found.exit_code


@netctl.command()
@INSTANCE
@OUTPUT
def leases(instance: int, form: str) -> int:
    """Who has which pod subnet, as this node's agent reads the registry.

    Exit code 0: all is well; 1: some are skipped; 3: the agent does not answer.
    """
    from netctl.get import show  # noqa: PLC0415

    return show(runtime_directory(), Instance(instance).program, "leases", form)


@netctl.command()
@INSTANCE
@OUTPUT
def peers(instance: int, form: str) -> int:
    """The other nodes: what leads to them, and whether they answer over the overlay.

    PATH is `reachable`, `lost`, `mtu` when only small packets arrive, and `silent` for who never answered, as flanneld.
    Exit code 0: all is well; 1: one is lost or not in the kernel; 3: the agent does not answer.
    """
    from netctl.get import show  # noqa: PLC0415

    return show(runtime_directory(), Instance(instance).program, "peers", form)


@netctl.command()
@click.option("-f", "--filename", "files", type=click.Path(path_type=Path), required=True, multiple=True)
@ENDPOINTS
@PREFIX
def apply(files: tuple[Path, ...], etcd_endpoints: str, etcd_prefix: str) -> int:
    """Write the Services and EndpointSlices of manifests into etcd.

    Everything is read and checked before the first object is written. `-f -` reads standard input; a folder stands
    for all manifests in it.
    """
    from netctl.objects import apply_manifests  # noqa: PLC0415

    return apply_manifests(files, etcd_endpoints, etcd_prefix)


@netctl.command()
@click.option("-f", "--filename", "files", type=click.Path(path_type=Path), required=True, multiple=True)
@ENDPOINTS
@PREFIX
def delete(files: tuple[Path, ...], etcd_endpoints: str, etcd_prefix: str) -> int:
    """Delete the Services and EndpointSlices of manifests from etcd."""
    from netctl.objects import delete_manifests  # noqa: PLC0415

    return delete_manifests(files, etcd_endpoints, etcd_prefix)


def main() -> None:
    sys.exit(run_command(netctl))


if __name__ == "__main__":
    main()
