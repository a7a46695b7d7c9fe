"""`netctl explain`."""

from pathlib import Path

import click

from netctl.complete import services
from netctl.options import FROM, OUTPUT, WITHOUT_DAEMONS, node_of


@click.command()
@click.argument("ends", nargs=-1, required=True, metavar="[SOURCE] DESTINATION", shell_complete=services)
@click.option("--verify", is_flag=True, help="Send one packet, and compare.")
@WITHOUT_DAEMONS
@OUTPUT
@FROM
def explain(ends: tuple[str, ...], *, verify: bool, without_daemons: bool, form: str, bundle: Path | None) -> int:
    """What becomes of a packet on this node, and why; sends nothing.

    SOURCE is an address, a pod of this node, or - for this node itself. DESTINATION is ADDRESS:PORT, [IPV6]:PORT or
    NAMESPACE/SERVICE[:PORT], with /udp or /sctp behind it when it is not TCP.

    Exit code 0: it arrives; 1: it is dropped or refused; 3: netproxy does not answer, and it alone knows the Service;
    5: the rules may not be read, or --verify may not send.
    """
    from netctl.explain.command import explain as show  # noqa: PLC0415

    if len(ends) > 2:
        raise click.UsageError(f"explain: {ends[2]!r} is too much; want [SOURCE] DESTINATION")
    return show(ends, form, node_of(bundle), verify=verify, anywhere=without_daemons)
