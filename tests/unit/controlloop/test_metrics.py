"""Metrics as text, read back by the rules of the format."""

import re

import pytest

from controlloop.metrics import (
    CONTENT_TYPE,
    Histogram,
    MetricFamily,
    Sample,
    by_label,
    counter,
    exposition,
    gauge,
    number_text,
)

LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\})? (\S+)')


def text(*families):
    return exposition(families).decode()


def test_a_family_has_its_help_its_type_and_a_line_for_each_sample():
    family = by_label("counter", "repairs_total", "Objects put back.", "kind", {"route": 3, "fdb": 0})
    assert text(family).splitlines() == [
        "# HELP repairs_total Objects put back.",
        "# TYPE repairs_total counter",
        'repairs_total{kind="route"} 3',
        'repairs_total{kind="fdb"} 0',
    ]


def test_the_text_ends_with_a_line_feed_and_names_its_version():
    assert text(gauge("ready", "Yes.", value=True)).endswith("ready 1\n")
    assert text() == ""
    assert "version=0.0.4" in CONTENT_TYPE


def test_nothing_in_a_label_or_a_help_text_starts_a_line_or_ends_a_value():
    nasty = 'a"b\\c\nd'
    lines = text(MetricFamily("x", "gauge", nasty, (Sample(1, {"by": nasty, "to": "{},="}),))).splitlines()
    assert lines[0] == '# HELP x a"b\\\\c\\nd'
    assert lines[2] == r'x{by="a\"b\\c\nd",to="{},="} 1'
    assert LINE.fullmatch(lines[2])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (True, "1"),
        (1.0, "1"),
        (0.25, "0.25"),
        (1e-7, "1e-07"),
        (1763855000.5, "1763855000.5"),
        (2**53, "9007199254740992"),
    ],
)
def test_whole_numbers_have_no_point_and_no_digit_is_lost(value, shown):
    assert number_text(value) == shown
    assert float(shown) == value


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_no_number_reads_back_as_such(value):
    assert str(float(number_text(value))) == str(value)


def test_a_counter_and_a_gauge_need_no_label():
    assert text(counter("a_total", "A.", 2), gauge("b", "B.", 0.5, node="n")).splitlines()[2::3] == [
        "a_total 2",
        'b{node="n"} 0.5',
    ]


def test_a_histogram_counts_what_is_at_most_each_bound():
    took = Histogram((0.001, 0.5, 2))
    for value in (0.0005, 0.001, 0.3, 1.0, 7.0):
        took.observe(value)
    assert text(MetricFamily("took_seconds", "histogram", "Time.", tuple(took.samples(family="ip")))).splitlines() == [
        "# HELP took_seconds Time.",
        "# TYPE took_seconds histogram",
        'took_seconds_bucket{family="ip",le="0.001"} 2',
        'took_seconds_bucket{family="ip",le="0.5"} 3',
        'took_seconds_bucket{family="ip",le="2"} 4',
        'took_seconds_bucket{family="ip",le="+Inf"} 5',
        'took_seconds_sum{family="ip"} 8.3015',
        'took_seconds_count{family="ip"} 5',
    ]
