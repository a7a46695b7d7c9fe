"""Counts out of the kernel's messages."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlloop.nft.counters import Count, counts
from controlloop.nft.elements import elements, many_elements

NESTED = 0x8000
PLACE = "ipv4_addr . inet_proto . inet_service"
KEY = bytes([10, 96, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0])
SINGLE, SEVERAL = 7, 11


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def expression(name, packets, size, *, padded=False):
    """As the kernel sends them, on machines that align 64 bits too."""
    padding = attribute(3, b"") if padded else b""
    numbers = padding + attribute(1, struct.pack(">Q", size)) + attribute(2, struct.pack(">Q", packets))
    return attribute(1, name.encode() + b"\0") + attribute(2 | NESTED, numbers)


def message(*elements_):
    """Each: what stands behind the key."""
    key = attribute(1 | NESTED, attribute(1, KEY))
    listed = b"".join(attribute(1 | NESTED, key + behind) for behind in elements_)
    return attribute(1, b"netproxy\0") + attribute(2, b"traffic\0") + attribute(3 | NESTED, listed)


FORMS = {
    "one": attribute(SINGLE | NESTED, expression("counter", 3, 2**40)),
    "one of several": attribute(
        SEVERAL | NESTED,
        attribute(1 | NESTED, expression("quota", 9, 9)) + attribute(1 | NESTED, expression("counter", 3, 2**40)),
    ),
    "aligned": attribute(SINGLE | NESTED, expression("counter", 3, 2**40, padded=True)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_counter_is_read_where_it_stands(form):
    assert dict(counts(message(FORMS[form]), PLACE)) == {"10.96.0.1 . tcp . 80": Count(3, 2**40)}


@pytest.mark.parametrize("form", FORMS)
def test_a_counter_is_no_part_of_an_element(form):
    for read in elements, many_elements:
        assert list(read(message(FORMS[form], FORMS[form]), PLACE)) == [("10.96.0.1 . tcp . 80", "")] * 2


@pytest.mark.parametrize("behind", [b"", attribute(SINGLE | NESTED, expression("quota", 3, 4))])
def test_an_element_without_counter_is_left_out(behind):
    assert list(counts(message(behind), PLACE)) == []


@given(st.binary(max_size=120))
def test_any_bytes_come_to_an_end(payload):
    with suppress(ValueError):
        list(counts(payload, PLACE))
