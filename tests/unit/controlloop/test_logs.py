"""One line for each event, which both people and programs can read."""

import logging

import pytest

from controlloop.logs import KeyValueFormatter, quote


def record(message, *, level=logging.INFO, error=None, **fields):
    made = logging.LogRecord("x", level, "file", 1, message, (), (type(error), error, None) if error else None)
    made.fields = fields
    return made


def test_fields_become_pairs():
    line = KeyValueFormatter(journal=True).format(record("synced", changes=3, rules="nftables-ip"))
    assert line == "<6>synced changes=3 rules=nftables-ip"


@pytest.mark.parametrize(
    ("value", "text"),
    [("plain", "plain"), ("two words", '"two words"'), ("", '""'), ('say "hi"', '"say \\"hi\\""'), ("a\nb", '"a\\nb"')],
)
def test_values_stay_on_one_line_and_apart(value, text):
    assert quote(value) == text


def test_a_fault_is_logged_whole_on_one_line():
    line = KeyValueFormatter(journal=True).format(record("fault", level=logging.ERROR, error=KeyError("x")))
    assert line.startswith("<3>fault exception=")
    assert "\n" not in line


def test_outside_the_journal_a_line_has_its_time_and_level():
    line = KeyValueFormatter(journal=False).format(record("synced"))
    assert " info    synced" in line
