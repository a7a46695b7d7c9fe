"""Lengths of time, as Go reads and prints them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlloop.duration import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("1h30m", 5400), ("1.5s", 1.5), ("250ms", 0.25), ("0", 0), ("0s", 0), ("-1m", -60), (".5m", 30)],
)
def test_what_go_reads_is_read(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "1d", "1h 30m", "--1s", "1s\n", "1e3s", "٣s"])
def test_what_go_refuses_is_refused(text):
    with pytest.raises(ValueError, match="want a length of time"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (30, "30s"), (5400, "1h30m0s"), (86_400, "24h0m0s"), (0.25, "250ms"), (61.5, "1m1.5s"), (1e-6, "1µs")],
)
def test_it_is_printed_as_go_prints_it(seconds, text):
    assert format_duration(seconds) == text


@given(st.integers(-(10**15), 10**15))
def test_what_is_printed_reads_back(milliseconds):
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)
