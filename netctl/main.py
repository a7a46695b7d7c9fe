"""The command line. Each command imports what it needs when it runs, so that --help is quick."""

import sys

import click

from controlloop import __version__
from controlloop.flags import run_command
from netctl.apply.cli import apply, delete
from netctl.explain.cli import explain
from netctl.findings.cli import check, help_
from netctl.get.cli import get, leases, peers
from netctl.lab.cli import lab
from netctl.status.cli import status, wait

COMMANDS: tuple[click.Command, ...] = (
    *(status, wait, get, leases, peers),
    *(explain,),
    *(check, help_),
    *(apply, delete),
    lab,
)


@click.group()
@click.version_option(__version__, prog_name="netctl")
def netctl() -> None:
    """See what a node's network does, give it Services, and try it in a lab."""


for command in COMMANDS:
    netctl.add_command(command)


def main() -> None:
    sys.exit(run_command(netctl))


if __name__ == "__main__":
    main()
