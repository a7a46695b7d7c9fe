"""The command line. Each command imports what it needs when it runs, so that --help is quick."""

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from controlloop import __version__
from controlloop.etcd_settings import EtcdSettings, etcd_flags, etcd_settings
from controlloop.flags import run_command
from controlloop.goflags import parse_flags
from controlloop.runtime import runtime_directory
from netagent.instance import LIMIT, Instance
from netctl.lab import lab
from netctl.output import FORMATS

STORE = (
    click.option("-f", "--filename", "files", type=click.Path(path_type=Path), required=True, multiple=True),
    click.option(
        "--manifests", metavar="DIR", type=click.Path(path_type=Path), help="This directory in place of etcd."
    ),
)
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


def on_etcd(prefix: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """The options that say where etcd is and who we are to it; below `prefix` unless told otherwise."""
    where = click.option("--etcd-prefix", metavar="KEY", default=prefix, show_default=True)
    return lambda command: with_options((*ETCD, where), command)


def on_store(command: Callable[..., int]) -> Callable[..., int]:
    """The options that name where manifests go."""
    return with_options(STORE, on_etcd("/nodenet")(command))


def with_options(options: Iterable[Callable[..., Any]], command: Callable[..., int]) -> Callable[..., int]:
    for option in reversed(tuple(options)):
        command = option(command)
    return command


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
@click.argument("ends", nargs=-1, required=True, metavar="[SOURCE] DESTINATION")
@click.option("--verify", is_flag=True, help="Send one packet, and compare.")
@OUTPUT
def explain(ends: tuple[str, ...], *, verify: bool, form: str) -> int:
    """Say what becomes of a packet on this node, and why, without sending it.

    SOURCE is an address, a pod of this node, or - for this node itself. DESTINATION is ADDRESS:PORT, [IPV6]:PORT or
    NAMESPACE/SERVICE[:PORT], with /udp or /sctp behind it when it is not TCP.

    Exit code 0: it arrives; 1: it is dropped or refused; 3: netproxy does not answer, and it alone knows the Service;
    5: the rules may not be read.
    """
    from netctl.explain.command import explain as show  # noqa: PLC0415

    if len(ends) > 2:
        raise click.UsageError(f"explain: {ends[2]!r} is too much; want [SOURCE] DESTINATION")
    return show(ends[0] if len(ends) == 2 else "-", ends[-1], form, runtime_directory(), verify=verify)


@netctl.command()
@on_store
@click.option(
    "--service-cluster-ip-range", "addresses", metavar="CIDR[,CIDR]", default="", help="Default: 10.96.0.0/12"
)
@click.option("--service-node-port-range", "ports", metavar="FIRST-LAST", default="", help="Default: 30000-32767")
def apply(files: tuple[Path, ...], manifests: Path | None, addresses: str, ports: str, **etcd: str) -> int:
    """Write the Services, EndpointSlices and Endpoints of manifests into etcd.

    Everything is read and checked before the first object is written. `-f -` reads standard input; a folder stands
    for all manifests in it. A Service without an address or node port is given one, and keeps it. The ranges may also
    stand in the key PREFIX/config: {"serviceClusterIPRange": "10.96.0.0/12", "serviceNodePortRange": "30000-32767"}.
    """
    from netctl.apply.objects import Ranges, Target, apply_manifests  # noqa: PLC0415

    return apply_manifests(files, Target(etcd_of(etcd), manifests), Ranges(addresses, ports))


@netctl.command()
@on_store
def delete(files: tuple[Path, ...], manifests: Path | None, **etcd: str) -> int:
    """Delete the Services, EndpointSlices and Endpoints of manifests from etcd."""
    from netctl.apply.objects import Target, delete_manifests  # noqa: PLC0415

    return delete_manifests(files, Target(etcd_of(etcd), manifests))


@netctl.command()
@click.option("--for", "goal", type=click.Choice(["ready"]), default="ready", show_default=True, help="What for.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds.")
def wait(goal: str, timeout_s: float) -> int:
    """Wait until this node's daemons are ready: the kernel holds what it should.

    Exit code 0: so it is; 4: not in time.
    """
    from netctl.wait import wait_until_ready  # noqa: PLC0415

    del goal  # click takes no other
    return wait_until_ready(runtime_directory(), timeout_s)


@netctl.group()
def check() -> None:
    """Look for faults before they hurt: in the host, between the nodes, in the store.

    Exit code 0: none; 1: a finding; 3: something could not be looked at.
    """


@check.command()
@OUTPUT
def host(form: str) -> int:
    """Kernel, sysctls, devices, sockets, and rules of other programs. Changes nothing; needs root."""
    from netctl.findings.command import check_host, show  # noqa: PLC0415

    return show(check_host(), form)


@check.command()
@OUTPUT
def net(form: str) -> int:
    """Do peers and Services answer this node? Sends a few pings, and one connection to each of some ClusterIPs."""
    from netctl.findings.command import check_net, show  # noqa: PLC0415

    return show(check_net(runtime_directory()), form)


@check.command("etcd")
@on_etcd("/coreos.com/network")
@OUTPUT
def check_etcd(form: str, **etcd: str) -> int:
    """Is the store of leases safe, and does what stands in it make sense? Only reads."""
    from netctl.findings.command import check_etcd as look  # noqa: PLC0415
    from netctl.findings.command import show  # noqa: PLC0415

    return show(look(etcd_of(etcd)), form)


@netctl.command("help")
@click.argument("topic", required=False, metavar="[CODE|COMMAND]")
@OUTPUT
@click.pass_context
def help_(context: click.Context, topic: str | None, form: str) -> int:
    """What a finding's code means and what to do: `netctl help NN104`. `netctl help codes` lists them."""
    root = context.find_root()
    if command := netctl if topic is None else netctl.commands.get(topic):
        click.echo(command.get_help(click.Context(command, info_name=topic, parent=root) if topic else root))
        return 0
    from netctl.findings.command import is_code, show_code  # noqa: PLC0415

    code = (topic or "").upper()
    if not is_code(code):
        raise click.BadParameter(f"{topic!r} is no code and no command; `netctl help codes` lists the codes")
    show_code(code, form)
    return 0


def etcd_of(texts: Mapping[str, str]) -> EtcdSettings:
    """What the options say, checked as the daemons check theirs."""
    argv = [f"--{name.replace('_', '-')}={text}" for name, text in texts.items() if text]
    return etcd_settings(parse_flags((("etcd", etcd_flags("", "", "")),), argv, {}, ""))


def main() -> None:
    sys.exit(run_command(netctl))


if __name__ == "__main__":
    main()
