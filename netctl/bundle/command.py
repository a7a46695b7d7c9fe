"""`netctl bundle`: everything there is to know about this node's network, in one file."""

import sys
import time
from pathlib import Path

import click

from controlloop.printable import escaped
from netctl.bundle.archive import write
from netctl.bundle.collect import collected
from netctl.bundle.question import LOG, PAGE, STATUS, Question
from netctl.bundle.record import Record
from netctl.exit_codes import OK
from netctl.node import LiveNode

NOT_ALLOWED = ("Operation not permitted", "ermission denied")
NOT_IN_A_NAME = str.maketrans(dict.fromkeys("/\\\x00 \n\t", "_"))


def take(path: Path | None) -> int:
    record = collected(LiveNode(), progress if sys.stderr.isatty() else lambda _done, _all: None)
    target = path or default_path(record)
    write(target, record.members(), record.taken_at)
    click.echo(target)
    click.echo(summary(record, target.stat().st_size), err=True)
    return OK


def default_path(record: Record) -> Path:
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(record.taken_at))
    name = escaped(record.node).translate(NOT_IN_A_NAME) or "node"
    return Path(f"nodenet-{name}-{moment}.tar.gz")


def progress(done: int, every: int) -> None:
    click.echo(f"\r{done} of {every} answers", nl=done == every, err=True)


def summary(record: Record, size: int) -> str:
    """One line: what is in it, and what to do before it goes elsewhere."""
    logs = [question for question, said in record.said.items() if question.kind == LOG and not said.error]
    quiet = [daemon for daemon in record.daemons if record.said[Question(PAGE, (daemon, STATUS))].error]
    without = f"; {escaped(', '.join(quiet))} did not answer" if quiet else ""
    if any(word in said.error for said in record.said.values() for word in NOT_ALLOWED):
        without += "; root would be told more"
    return (
        f"{len(record.said) - len(record.silent)} answers and {len(logs)} logs, {size / 2**10:.0f} KiB, taken in "
        f"{record.took_s:.1f} s{without}. What looks like a secret is masked: review it before sharing."
    )
