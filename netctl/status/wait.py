"""`netctl wait`: until this node's daemons hold what they should, for scripts and units."""

import time

import click

from netctl.exit_codes import OK, TIMED_OUT
from netctl.findings.finding import Finding, ordered
from netctl.node import Node
from netctl.status.node_status import read_status

PERIOD_S = 0.1


def wait_until_ready(node: Node, timeout_s: float) -> int:
    """Exit code 0, or 4 when the time is over; then one line says what is still missing."""
    deadline = time.monotonic() + timeout_s
    while True:
        status = read_status(node)
        if status.is_ready:
            return OK
        if time.monotonic() + PERIOD_S > deadline:
            missing = [name for name, document in status.daemons.items() if not (document and document["ready"])]
            click.echo(f"netctl: wait: not ready after {timeout_s:g} s: {reason(missing, status.findings)}", err=True)
            return TIMED_OUT
        time.sleep(PERIOD_S)


def reason(missing: list[str], findings: list[Finding]) -> str:
    told = [f"{each.code} {each.evidence}" for each in ordered(findings) if each.object in missing]
    return "; ".join(told) or ", ".join(missing)
