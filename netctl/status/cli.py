"""`netctl status` and `netctl wait`."""

from pathlib import Path

import click

from netctl.options import FROM, OUTPUT, node_of


@click.command()
@OUTPUT
@FROM
def status(form: str, bundle: Path | None) -> int:
    """Is this node's network healthy, and if not, where first?

    Exit code 0: all is well; 1: a finding; 3: a daemon does not answer.
    """
    from netctl.status.node_status import read_status  # noqa: PLC0415
    from netctl.terminal import painter  # noqa: PLC0415

    found = read_status(node_of(bundle))
    if text := found.shown(form, painter()):
        click.echo(text)
    return found.exit_code


@click.command()
@click.option("--for", "goal", type=click.Choice(["ready"]), default="ready", show_default=True, help="What for.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds.")
def wait(goal: str, timeout_s: float) -> int:
    """Wait until the kernel holds what it should.

    Exit code 0: so it is; 4: not in time.
    """
    from netctl.status.wait import wait_until_ready  # noqa: PLC0415

    del goal  # click takes no other
    return wait_until_ready(node_of(None), timeout_s)
