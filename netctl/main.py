"""The command line. Each command imports what it needs when it runs, so that --help is quick."""

import errno
import os
import sys

import click

from controlloop import __version__
from controlloop.flags import run_command
from netctl.apply.cli import apply, delete
from netctl.bundle.cli import bundle
from netctl.diff.cli import diff
from netctl.events.cli import events
from netctl.explain.cli import explain
from netctl.findings.cli import check, help_
from netctl.get.cli import get, leases, peers
from netctl.graph.cli import graph
from netctl.lab.cli import lab
from netctl.plan.cli import plan
from netctl.reference.cli import commands, completion, man
from netctl.status.cli import status, wait
from netctl.top.cli import top
from netctl.trace.cli import trace

COMMANDS: dict[str, tuple[click.Command, ...]] = {
    "See what is there": (status, get, leases, peers, events, top, graph),
    "Ask where packets go": (explain, trace),
    "Look for faults": (diff, check, help_, wait, bundle),
    "Change Services": (plan, apply, delete),
    "Try it": (lab,),
    "Netctl itself": (commands, completion, man),
}
SUMMARY = 62
"""Characters of a command's first sentence that fit a line of 80."""
INTERNAL_ERROR, OUTPUT_ERROR = 70, 74
"""EX_SOFTWARE and EX_IOERR of sysexits.h."""
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What writing the answer fails with."""
TRACEBACK = "NODENET_TRACEBACK"


class Titled(click.Group):
    """Lists its commands under the titles of COMMANDS."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        for title, each in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(command.name or "", command.get_short_help_str(SUMMARY)) for command in each])


@click.group(cls=Titled, invoke_without_command=True)
@click.version_option(__version__, prog_name="netctl")
@click.pass_context
def netctl(context: click.Context) -> int:
    """See what a node's network does, ask it why, give it Services, and try it in a lab.

    Without a command: status.
    """
    if context.invoked_subcommand is not None:
        return 0
    shown: int = context.invoke(status, form="table", bundle=None)
    return shown


for command in (command for each in COMMANDS.values() for command in each):
    netctl.add_command(command)


def main() -> None:
    try:
        code = run_command(netctl)
        sys.stdout.flush()
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        code = failed(error)
    sys.exit(code)


def failed(error: Exception) -> int:
    """Say so in one line; gives back the exit code."""
    if isinstance(error, OSError) and error.filename is None and error.errno in UNWRITABLE:
        # Else the interpreter tries to write the rest once more, and complains in words of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"netctl: standard output: {error.strerror}", file=sys.stderr)
        return OUTPUT_ERROR
    kind = type(error).__name__
    print(f"netctl: a fault of netctl itself: {kind}: {error} ({TRACEBACK}=1 shows where)", file=sys.stderr)
    return INTERNAL_ERROR


if __name__ == "__main__":
    main()
