"""`netctl trace`: what becomes of live packets on this node, as the kernel tells it."""

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from os import getpid
from shutil import get_terminal_size
from types import FrameType
from typing import BinaryIO

import click

from controlloop.client import UnreachableError
from controlloop.command import CommandError
from controlloop.errors import OperatorError
from netctl.exit_codes import FINDING, OK, REFUSED, TIMED_OUT, UNREACHABLE
from netctl.explain.explanation import WIDTH
from netctl.explain.walk import TRACE_TABLES
from netctl.node import Node
from netctl.output import API_VERSION, render_document
from netctl.presence import NoDaemonError, require_daemon
from netctl.terminal import painter
from netctl.trace.drop_reasons import DropReasons, find_tracefs
from netctl.trace.happened import Happened, summary, summary_text
from netctl.trace.hearing import Hearing
from netctl.trace.journeys import Journey, Journeys
from netctl.trace.kernel import LegacyLog, TraceError, TraceSocket, legacy_families, make_table
from netctl.trace.observer import Observer
from netctl.trace.packet_filter import PacketFilter
from netctl.trace.pcapng import PcapngWriter
from netctl.trace.trace_table import table_text
from netctl.trace.undo import Undo
from netctl.trace.wanted import Wanted, read_filter

PATIENCE_S = 5.0
"""For what had begun when it ends, and for what is still unread then."""
ENDLESS = 10_000
"""Columns, for a script that looks for words."""
STREAMED = ("table", "wide", "name")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BY_SIGNAL = 128


def trace(wanted: Wanted, node: Node, *, anywhere: bool = False) -> int:
    """Follow packets until enough were seen, the time is over or somebody ends it; `anywhere`: not on a node alone."""
    deadline_s = wanted.timeout_s
    try:
        chosen = read_filter(wanted, node)
        if not anywhere:
            require_daemon(node)
        with ExitStack() as stack:
            return Trace(wanted, node, chosen, stack).run(deadline_s)
    except UnreachableError as error:
        click.echo(f"netctl: trace: netproxy does not answer ({error}); give ADDRESS:PORT", err=True)
        return UNREACHABLE
    except PermissionError as error:
        return refuse(f"rules cannot be written ({error.strerror}); run it as root")
    except (CommandError, NoDaemonError, TraceError) as error:
        return refuse(str(error))


def refuse(message: str) -> int:
    click.echo(f"netctl: trace: {' '.join(message.split())}", err=True)
    return REFUSED


def hint(message: str) -> None:
    click.echo(f"netctl: trace: {message}", err=True)


class Trace:
    """One run. Everything that it opens is closed by `stack`, in the order that the parts need."""

    def __init__(self, wanted: Wanted, node: Node, chosen: PacketFilter, stack: ExitStack) -> None:
        self._wanted = wanted
        self._stack = stack
        self._signal = 0
        self._told: list[Happened] = []
        self._file = self._open_file()
        self._writer = PcapngWriter()
        for number in SIGNALS:
            stack.callback(signal.signal, number, signal.signal(number, self._stop))
        tracefs = find_tracefs()
        # Before any socket, which it must not keep open.
        self._undo = Undo()
        stack.callback(self._undo.close)
        self._reasons = self._hear_reasons(tracefs)
        logged = self._hear_legacy()
        self._observer = stack.enter_context(closing(Observer(node, self._reasons)))
        traced = stack.enter_context(closing(TraceSocket()))
        name = f"{TRACE_TABLES}{getpid()}"
        self._journeys = Journeys(name, socket.if_nametoindex("lo"))
        self._hearing = Hearing(self._journeys, traced, logged)
        starts = ("output",) if chosen.is_from_node else ("prerouting", "output")
        until = int(time.time() + wanted.timeout_s) + 1
        make_table(name, table_text(name, chosen.matches, starts, until), self._undo)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number

    # -- what is heard --------------------------------------------------------------------------------------------

    def _open_file(self) -> BinaryIO | None:
        if self._wanted.file is None:
            return None
        try:
            file = self._stack.enter_context(self._wanted.file.open("wb"))
        except OSError as error:
            raise OperatorError(f"trace: --write={self._wanted.file}: {error.strerror}") from None
        file.write(PcapngWriter().start())
        return file

    def _hear_reasons(self, tracefs: str | None) -> DropReasons | None:
        try:
            if tracefs:
                return self._stack.enter_context(closing(DropReasons(tracefs, self._undo)))
        except OSError as error:
            hint(f"no drop reasons from the kernel: {error.strerror} ({error.filename})")
            return None
        hint("no drop reasons from the kernel: tracefs can neither be read nor mounted here")
        return None

    def _hear_legacy(self) -> LegacyLog | None:
        if not legacy_families():
            return None
        try:
            return self._stack.enter_context(closing(LegacyLog(self._undo)))
        except OSError as error:
            hint(f"rules of iptables-legacy are not named: their log cannot be read ({error.strerror})")
            return None

    # -- the loop -------------------------------------------------------------------------------------------------

    def run(self, timeout_s: float) -> int:
        several = "packet" if self._wanted.count == 1 else "packets"
        hint(f"waiting for up to {self._wanted.count} {several}, for {self._wanted.timeout} at most")
        for journey in self._finished(time.monotonic() + timeout_s):
            self._tell(journey)
            if len(self._told) == self._wanted.count:
                break
        self._conclude()
        if self._signal:
            return BY_SIGNAL + self._signal
        if not self._told:
            return TIMED_OUT
        return OK if all(each.arrives for each in self._told) else FINDING

    def _finished(self, deadline: float) -> Iterator[Journey]:
        """Until then; and whatever had begun by then."""
        while (now := time.monotonic()) < deadline and not self._signal:
            yield from self._over()
        last = now + PATIENCE_S
        # What was said by then counts, whenever it is read.
        while self._journeys.until < now and time.monotonic() < last:
            yield from self._over()
        self._journeys.takes_new = False
        while self._journeys.has_open and time.monotonic() < last:
            yield from self._over()
        self._journeys.miss()
        self._journeys.catch_up(float("inf"))
        yield from self._journeys.over()

    def _over(self) -> Iterator[Journey]:
        self._hearing.read()
        if self._reasons:
            self._reasons.read(time.monotonic())
        yield from self._journeys.over()

    # -- what is told ---------------------------------------------------------------------------------------------

    def _tell(self, journey: Journey) -> None:
        happened = self._observer.told(journey)
        self._told.append(happened)
        if self._file:
            time_ns = int(self._observer.seconds(journey) * 1e9)
            start = journey.start
            device = happened.packet.came_in
            self._file.write(self._writer.packet(device, time_ns, start.raw, start.length, happened.sentence))
            self._file.flush()
        if self._wanted.form == "name":
            click.echo(happened.name)
        elif self._wanted.form in STREAMED:
            width = ENDLESS if self._wanted.form == "wide" else min(WIDTH, get_terminal_size().columns)
            click.echo(happened.render(width, painter()))

    def _conclude(self) -> None:
        found = summary(self._told, self._hearing.overflows)
        if self._wanted.form in ("json", "yaml"):
            items = [each.document() for each in self._told]
            document = {"apiVersion": API_VERSION, "kind": "Trace", "items": items, "summary": found}
            click.echo(render_document(document, self._wanted.form))
        elif self._wanted.form in ("table", "wide"):
            click.echo(summary_text(found))
