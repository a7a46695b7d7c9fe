"""Options that several commands share. Imported by every command, so it imports little."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from controlloop.etcd_settings import EtcdSettings
    from netctl.node import Node

FORMATS = ("table", "wide", "json", "yaml", "name")
LAST_INSTANCE = 7
"""netagent.instance.LIMIT, which would cost every command its import."""
ETCD = (
    click.option(
        "--etcd-endpoints",
        metavar="URL[,URL]",
        envvar="NODENET_ETCD_ENDPOINTS",
        default="http://127.0.0.1:2379",
        show_default=True,
        help="Also from NODENET_ETCD_ENDPOINTS.",
    ),
    click.option("--etcd-cafile", metavar="FILE", default="", help="Who signed the servers' certificates."),
    click.option("--etcd-certfile", metavar="FILE", default="", help="Our certificate."),
    click.option("--etcd-keyfile", metavar="FILE", default="", help="Its key."),
    click.option("--etcd-username", metavar="NAME", default="", help="Log in as this user."),
    click.option(
        "--etcd-password",
        metavar="TEXT",
        envvar="NODENET_ETCD_PASSWORD",
        default="",
        help="Better from NODENET_ETCD_PASSWORD: others see a command line.",
    ),
)
INSTANCE = click.option(
    "--instance",
    type=click.IntRange(0, LAST_INSTANCE),
    metavar="NUMBER",
    default=0,
    show_default=True,
    envvar="NODENET_INSTANCE",
    help="Of which of the node's agents; also from NODENET_INSTANCE.",
)
OUTPUT = click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="For people, with more columns, for programs, or names alone.",
)
MANIFESTS = click.option(
    "-f",
    "--filename",
    "files",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    help="A manifest, a folder of them, or - for standard input.",
)
FROM = click.option(
    "--from",
    "bundle",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Read this bundle of `netctl bundle` in place of the node.",
)

WITHOUT_DAEMONS = click.option(
    "--without-daemons", is_flag=True, help="Send packets also where no daemon of nodenet answers."
)


def on_etcd(prefix: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """The options that say where etcd is and who we are to it; below `prefix` unless told otherwise."""
    where = click.option(
        "--etcd-prefix", metavar="KEY", default=prefix, show_default=True, help="Below which key everything stands."
    )
    return lambda command: with_options((*ETCD, where), command)


def with_options(options: Iterable[Callable[..., Any]], command: Callable[..., int]) -> Callable[..., int]:
    for option in reversed(tuple(options)):
        command = option(command)
    return command


def etcd_of(texts: Mapping[str, str]) -> "EtcdSettings":
    """What the options say, checked as the daemons check theirs."""
    from controlloop.etcd_settings import etcd_flags, etcd_settings  # noqa: PLC0415
    from controlloop.goflags import parse_flags  # noqa: PLC0415

    argv = [f"--{name.replace('_', '-')}={text}" for name, text in texts.items() if text]
    return etcd_settings(parse_flags((("etcd", etcd_flags("", "", "")),), argv, {}, ""))


def node_of(bundle: Path | None) -> "Node":
    """Where to read: this node, or what was collected of one."""
    from netctl.node import LiveNode  # noqa: PLC0415

    if bundle is None:
        return LiveNode()
    from netctl.bundle.replay import BundledNode  # noqa: PLC0415

    return BundledNode.open(bundle)
