"""`netctl lab`, which the package lab does."""

import sys
from pathlib import Path
from typing import NoReturn

import click

from controlloop.errors import OperatorError
from netctl.complete import lab_hosts
from netctl.graph.cli import drawn
from netctl.lab.faults_cli import break_, heal
from netctl.lab.options import NAME, lab_errors, named


@click.group()
def lab() -> None:
    """A whole cluster on this machine, in network namespaces.

    Nodes, pods, a client and etcd. Needs root.
    """


@lab.command()
@NAME
@click.option("--nodes", type=click.IntRange(1, 250), default=3, show_default=True, help="How many.")
@click.option("--pods", type=click.IntRange(0, 100), default=2, show_default=True, help="Pods on each node.")
@click.option(
    "--mode", type=click.Choice(["iptables", "nftables"]), default="iptables", show_default=True, help="Of netproxy."
)
@click.option(
    "--balance", type=click.Choice(["random", "round-robin"]), default="random", show_default=True, help="Of netproxy."
)
def up(name: str, nodes: int, pods: int, mode: str, balance: str) -> int:
    """Bring a lab up and leave it running."""
    from lab.cluster import up as bring_up  # noqa: PLC0415
    from lab.topology import Spec  # noqa: PLC0415
    from netctl.lab.progress import Progress  # noqa: PLC0415

    spec = Spec(name, nodes=nodes, pods_per_node=pods, mode=mode, balance=balance)
    lab_errors(lambda: bring_up(spec, Progress(sys.stderr)))
    click.echo(f"lab {name} is up: {nodes} nodes in {mode} mode, {nodes * pods} pods.")
    on_node = f"exec{named(name)} node-1 --"
    for rest in (f"status{named(name)}", f"{on_node} netctl status", f"{on_node} ip route"):
        click.echo(f"  netctl lab {rest}")
    click.echo(f"  netctl lab break{named(name)}\n  netctl lab down{named(name)}")
    return 0


@lab.command()
@NAME
def down(name: str) -> int:
    """End a lab: its processes, its namespaces, its files."""
    from lab.cluster import take_down  # noqa: PLC0415

    lab_errors(lambda: take_down(name))
    click.echo(f"lab {name} is gone")
    return 0


@lab.command()
@NAME
def status(name: str) -> int:
    """Each node of the lab, as `netctl status` shows it there."""
    from lab.cluster import attach  # noqa: PLC0415
    from netctl.node import LiveNode  # noqa: PLC0415
    from netctl.status.node_status import read_status  # noqa: PLC0415
    from netctl.terminal import painter  # noqa: PLC0415

    cluster = lab_errors(lambda: attach(name))
    worst = 0
    for node in cluster.nodes:
        found = read_status(LiveNode(node.run_dir / "nodenet"))
        found.node = found.node or node.name
        click.echo(found.render(painter()))
        worst = max(worst, found.exit_code)
    for fault, host in cluster.faults.items():
        click.echo(f"fault {fault} on {host}; `netctl lab heal{named(name)} {fault}` ends it")
    for node_name, pod in cluster.spec.all_pods:
        click.echo(f"{pod} on {node_name}: {cluster.pod_address(pod)}")
    return worst


@lab.command()
@NAME
@drawn
def graph(name: str, form: str, file: Path | None) -> int:
    """Draw the whole lab, as all its nodes see each other.

    Exit code 0: no findings; 1: some; 3: a daemon does not answer.
    """
    from lab.cluster import attach  # noqa: PLC0415
    from netctl.graph.command import draw  # noqa: PLC0415
    from netctl.graph.reading import read_answers  # noqa: PLC0415
    from netctl.node import LiveNode  # noqa: PLC0415

    cluster = lab_errors(lambda: attach(name))
    places = [(LiveNode(each.run_dir / "nodenet"), each.name) for each in cluster.nodes]
    attached = cluster.spec.attached
    return draw([read_answers(node, own, str(attached[own].ip)) for node, own in places], form, file)


@lab.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@NAME
@click.argument("host", shell_complete=lab_hosts)
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
def exec(name: str, host: str, argv: tuple[str, ...]) -> NoReturn:  # noqa: A001 - the command's name
    """Run a program on a host of the lab, or a shell.

    `netctl lab exec node-2 -- ip route`
    """
    from lab.cluster import attach  # noqa: PLC0415
    from lab.topology import ETCD_URL  # noqa: PLC0415

    target = lab_errors(lambda: attach(name).host(host))
    environment = {"NODENET_ETCD_ENDPOINTS": ETCD_URL}
    # click takes a `--` away before the host, not one behind it.
    program = (argv[1:] if argv[:1] == ("--",) else argv) or ("bash",)
    try:
        target.become(program, environment)
    except OSError as error:
        raise OperatorError(f"lab exec: {program[0]} on {host}: {error.strerror}") from None


lab.add_command(break_)
lab.add_command(heal)
