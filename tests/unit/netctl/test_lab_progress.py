"""How `netctl lab up` tells how far it is."""

import io
import re

import pytest

from netctl.lab.progress import Progress

STEPS = ["wiring", "starting", "starting: 1 of 2 ready", "starting: 2 of 2 ready", "attaching: 0 done"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")


def told(stream):
    tell = Progress(stream)
    for step in STEPS:
        tell(step)
    return re.sub(r" +[0-9.]+ s  ", "", stream.getvalue())


def test_a_log_has_each_step_once():
    assert told(io.StringIO()) == "wiring\nstarting\nattaching\n"


def test_on_a_terminal_a_step_counts_in_its_line():
    over = "\033[A\r\033[K"
    counted = f"starting\n{over}starting: 1 of 2 ready\n{over}starting: 2 of 2 ready\n"
    assert told(Terminal()) == f"wiring\n{counted}attaching: 0 done\n"


def test_a_line_never_takes_two_of_a_narrow_terminal():
    terminal = Terminal()
    Progress(terminal)("starting netagent and netproxy on 50 nodes")
    assert terminal.getvalue() == "   0.0 s  starting netagent and netpr...\n"
