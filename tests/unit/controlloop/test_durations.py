import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlloop.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("30s", 30),
        ("1h30m", 5400),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("500ms", 0.5),
        ("1m0s", 60),
        ("-2s", -2),
        ("+2s", 2),
        ("250us", 250e-6),
        ("250µs", 250e-6),
        ("7ns", 7e-9),
    ],
)
def test_durations_are_read_as_go_reads_them(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", "s", ".s", "1h 30m", "1d", "one", "1s;", "1s\n", "--1s", "1e3s", "٣s"])
def test_what_go_refuses_is_refused(text):
    with pytest.raises(ValueError, match=r".*"):
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
