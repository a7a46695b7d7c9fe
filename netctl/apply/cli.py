"""`netctl apply` and `netctl delete`."""

from collections.abc import Callable
from pathlib import Path

import click

from netctl.options import MANIFESTS, etcd_of, on_etcd, with_options

STORE = (
    MANIFESTS,
    click.option(
        "--manifests", metavar="DIR", type=click.Path(path_type=Path), help="This directory in place of etcd."
    ),
)


def on_store(command: Callable[..., int]) -> Callable[..., int]:
    """The options that name where manifests go."""
    return with_options(STORE, on_etcd("/nodenet")(command))


@click.command()
@on_store
@click.option(
    "--service-cluster-ip-range", "addresses", metavar="CIDR[,CIDR]", default="", help="Default: 10.96.0.0/12"
)
@click.option("--service-node-port-range", "ports", metavar="FIRST-LAST", default="", help="Default: 30000-32767")
def apply(files: tuple[Path, ...], manifests: Path | None, addresses: str, ports: str, **etcd: str) -> int:
    """Write the Services and endpoints of manifests into etcd.

    Services, EndpointSlices and Endpoints are understood. Everything is read and checked before the first object is
    written. `-f -` reads standard input; a folder stands for all manifests in it.

    A Service without an address or node port is given one, and keeps it. The ranges may also stand in the key
    PREFIX/config: {"serviceClusterIPRange": "10.96.0.0/12", "serviceNodePortRange": "30000-32767"}.
    """
    from netctl.apply.objects import Ranges, Target, apply_manifests  # noqa: PLC0415

    return apply_manifests(files, Target(etcd_of(etcd), manifests), Ranges(addresses, ports))


@click.command()
@on_store
def delete(files: tuple[Path, ...], manifests: Path | None, **etcd: str) -> int:
    """Delete the Services and endpoints of manifests from etcd."""
    from netctl.apply.objects import Target, delete_manifests  # noqa: PLC0415

    return delete_manifests(files, Target(etcd_of(etcd), manifests))
