"""`netctl top`: takes samples, and shows them on a screen or one after the other."""

import os
import select
import sys
import time
from collections import Counter
from dataclasses import dataclass

import click

from controlloop.client import UnreachableError
from controlloop.printable import escaped
from netctl.exit_codes import OK, REFUSED, UNREACHABLE
from netctl.node import Node
from netctl.output import one_word, render_document
from netctl.top.cli import SORT_WORDS
from netctl.top.flows import Flows
from netctl.top.services import Services
from netctl.top.terminal import StoppedError, Terminal
from netctl.top.usage import Sample, Usage
from netctl.top.view import Choice, Look, chosen, human, report, screen

SIGNALLED = 128
"""What a shell adds to the number of the signal that ended a program."""
NO_BYTES = "bytes are not counted: sysctl net.netfilter.nf_conntrack_acct=1 counts those of connections from then on"


@dataclass(frozen=True, slots=True)
class Request:
    choice: Choice
    form: str
    interval_s: float
    samples: int | None
    """None: for ever."""
    on_screen: bool


def top(node: Node, request: Request) -> int:
    try:
        flows = Flows()
    except PermissionError:
        click.echo("netctl: connections are heard from conntrack, which needs CAP_NET_ADMIN: run it as root", err=True)
        return REFUSED
    try:
        watch = Watch(node, flows)
        return show(watch, request) if request.on_screen else print_samples(watch, request)
    finally:
        flows.close()


class Watch:
    def __init__(self, node: Node, flows: Flows) -> None:
        self.flows = flows
        self.usage = Usage()
        self.trouble = ""
        """Why Services may be missing; empty when they are not."""
        self._services = Services(node)
        self._took_at = time.monotonic()
        self._overflows = 0
        self._refresh()
        self.flows.take_connections()
        self.flows.take_bytes(now=True)
        self._took_at = time.monotonic()

    def take(self, *, all_bytes: bool = False) -> Sample:
        """What happened since the last time; bytes as far as that is cheap, or all of them."""
        connections, sizes = self.flows.take_connections(), self.flows.take_bytes(now=all_bytes)
        now = time.monotonic()
        seconds, self._took_at = max(now - self._took_at, 1e-6), now
        self._refresh()
        counts, nobodys = self._services.attribute(connections, sizes[0] if sizes else Counter())
        overflows, self._overflows = self.flows.overflows - self._overflows, self.flows.overflows
        sample = Sample(time.time(), seconds, counts, sizes[1] if sizes else 0.0, nobodys, overflows)
        self.usage.samples.append(sample)
        return sample

    def _refresh(self) -> None:
        try:
            self._services.refresh()
            self.trouble = ""
        except UnreachableError as error:
            self.trouble = f"netproxy does not answer, Services are as they were: {error}"
        self.usage.targets = self._services.owners

    def notes(self) -> list[str]:
        last = self.usage.last
        found = [self.trouble] if self.trouble else []
        if last.overflows:
            found.append(f"INCOMPLETE: the kernel dropped notifications {last.overflows} times, there were more")
        if last.unattributed:
            found.append(f"{last.unattributed} translated connections belong to no Service of this node")
        return found if self.flows.with_bytes else [*found, NO_BYTES]


def print_samples(watch: Watch, request: Request) -> int:
    taken = 0
    due = time.monotonic()
    try:
        while request.samples is None or taken < request.samples:
            due += request.interval_s
            wait(watch.flows, due)
            watch.take(all_bytes=request.samples == 1)
            taken += 1
            print_sample(watch, request)
    except BrokenPipeError:
        # What is still in the buffer must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    return UNREACHABLE if watch.trouble else OK


def wait(flows: Flows, until: float) -> None:
    while (left_s := until - time.monotonic()) > 0:
        if select.select([flows], [], [], left_s)[0]:
            flows.read()


def print_sample(watch: Watch, request: Request) -> None:
    usage, owners = watch.usage, chosen(watch.usage, request.choice)
    for note in watch.notes():
        click.echo(f"netctl: {note}", err=True)
    if request.form in ("json", "yaml"):
        document = usage.document(owners)
        click.echo(render_document(document, request.form) if request.samples == 1 else one_line(document, request))
    elif request.form == "name":
        for owner in owners:
            if owner in usage.last.counts:
                click.echo(one_word(f"service/{owner}"))
    else:
        click.echo("\n".join(report(usage, owners, wide=request.form == "wide")))


def one_line(document: dict[str, object], request: Request) -> str:
    if request.form == "yaml":
        return f"---\n{render_document(document, request.form)}"
    import json  # noqa: PLC0415

    return json.dumps(document)


def show(watch: Watch, request: Request) -> int:
    """On the screen, until somebody has seen enough."""
    choice, taken = request.choice, 0
    try:
        with Terminal() as terminal:
            watch.usage.samples.append(Sample(time.time(), request.interval_s, {}))  # until there is one
            due = time.monotonic() + request.interval_s
            while True:
                if time.monotonic() >= due:
                    watch.take()
                    taken += 1
                    due = max(due + request.interval_s, time.monotonic())
                terminal.show(
                    screen(watch.usage, choice, look_of(*terminal.size), title(watch, request), watch.notes())
                )
                if taken == request.samples:
                    return OK
                if any(not obey(key, choice, watch.usage) for key in terminal.keys(due, watch.flows)):
                    return OK
    except StoppedError as error:
        return SIGNALLED + int(error.args[0])


def look_of(width: int, height: int) -> Look:
    return Look(width, height, is_unicode="utf" in (sys.stdout.encoding or "").lower())


def title(watch: Watch, request: Request) -> str:
    last, services = watch.usage.last, watch.usage.targets
    total = sum(count.connections.total() for count in last.counts.values()) / last.seconds
    said = f"netctl top  {len(services)} service ports  {human(total)} connections/s"
    if sized := watch.usage.last_bytes:
        said += f"  {human(sum(count.bytes.total() for count in sized.counts.values()) / sized.bytes_s)} bytes/s"
    said += f"  every {request.interval_s:g} s  by {request.choice.sort}"
    if not (text := request.choice.text):
        return said
    shown = len(watch.usage.by_name(text))
    return f"filter {escaped(text)}: {shown} of {said.removeprefix('netctl top  ')}"


def obey(key: str, choice: Choice, usage: Usage) -> bool:
    """False: enough."""
    if choice.typing:
        type_filter(key, choice)
        return True
    moves = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -10, "page down": 10}
    if key == "q":
        return False
    if key in moves:
        choice.cursor += moves[key]
    elif key == "/":
        choice.typing, choice.text = True, ""
    elif key == "escape":
        choice.text = ""
    elif key == "enter":
        for owner in chosen(usage, choice)[choice.cursor : choice.cursor + 1]:
            choice.open ^= {owner}
    else:
        choice.sort = next((sort for sort in SORT_WORDS if sort[0] == key), choice.sort)
    return True


def type_filter(key: str, choice: Choice) -> None:
    if key == "enter":
        choice.typing = False
    elif key == "escape":
        choice.typing, choice.text = False, ""
    elif key == "erase":
        choice.text = choice.text[:-1]
    elif len(key) == 1 and key.isprintable():
        choice.text += key
