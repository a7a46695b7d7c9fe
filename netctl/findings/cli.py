"""`netctl check` and `netctl help`."""

from pathlib import Path

import click

from netctl.complete import codes
from netctl.options import FROM, OUTPUT, WITHOUT_DAEMONS, etcd_of, node_of, on_etcd


@click.group()
def check() -> None:
    """Look for faults before they hurt: host, network, store.

    Exit code 0: none; 1: a finding; 3: something could not be looked at.
    """


@check.command()
@OUTPUT
@FROM
def host(form: str, bundle: Path | None) -> int:
    """Kernel, sysctls, devices, sockets, rules of other programs.

    Changes nothing; needs root.
    """
    from netctl.findings.command import check_host, show  # noqa: PLC0415

    return show(check_host(node_of(bundle)), form)


@check.command()
@WITHOUT_DAEMONS
@OUTPUT
def net(form: str, *, without_daemons: bool) -> int:
    """Do peers and Services answer this node?

    Sends a few pings, and one connection to each of some ClusterIPs.

    Exit code 0: they do; 1: a finding; 3: something could not be looked at; 5: no daemon of nodenet answers here.
    """
    from netctl.exit_codes import REFUSED  # noqa: PLC0415
    from netctl.findings.command import check_net, show  # noqa: PLC0415
    from netctl.presence import NoDaemonError, require_daemon  # noqa: PLC0415

    node = node_of(None)
    try:
        if not without_daemons:
            require_daemon(node)
    except NoDaemonError as error:
        click.echo(f"netctl: check net: {error}", err=True)
        return REFUSED
    return show(check_net(node), form)


@check.command()
@on_etcd("/coreos.com/network")
@OUTPUT
def etcd(form: str, **settings: str) -> int:
    """Is the store of leases safe, and does it make sense?

    Only reads.
    """
    from netctl.findings.command import check_etcd, show  # noqa: PLC0415

    return show(check_etcd(etcd_of(settings)), form)


@click.command("help")
@click.argument("topic", required=False, metavar="[CODE|COMMAND]", shell_complete=codes)
@OUTPUT
@click.pass_context
def help_(context: click.Context, topic: str | None, form: str) -> int:
    """What a finding's code means and what to do.

    `netctl help NN104`; `netctl help codes` lists them; `netctl help explain` is that command's help.
    """
    root = context.find_root()
    program = root.command
    assert isinstance(program, click.Group)
    if command := program if topic is None else program.commands.get(topic):
        click.echo(command.get_help(click.Context(command, info_name=topic, parent=root) if topic else root))
        return 0
    from netctl.findings.command import is_code, show_code  # noqa: PLC0415

    code = (topic or "").upper()
    if not is_code(code):
        raise click.BadParameter(f"{topic!r} is no code and no command; `netctl help codes` lists the codes")
    show_code(code, form)
    return 0
