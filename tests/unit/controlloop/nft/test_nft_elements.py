"""Elements out of the kernel's messages: one by one, and many at one blow."""

import struct
from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlloop.nft.elements import UnknownTypeError, elements, many_elements, printer, words

NESTED = 0x8000
V4 = "ipv4_addr . inet_proto . inet_service"
V6 = "ipv6_addr . inet_service . integer"


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def goto(chain):
    return attribute(2 | NESTED, attribute(1, struct.pack(">i", -4)) + attribute(2, chain.encode() + b"\0"))


def message(*pairs):
    """As the kernel sends them: key, and what stands in the attribute of the value."""
    listed = b""
    for key, value in pairs:
        data = attribute(2 | NESTED, value) if value else b""
        listed += attribute(1 | NESTED, attribute(1 | NESTED, attribute(1, key)) + data)
    return attribute(1, b"netproxy\0") + attribute(2, b"services\0") + attribute(3 | NESTED, listed)


addresses = st.ip_addresses(v=4).map(lambda address: address.packed)
ports = st.integers(0, 65535).map(lambda port: struct.pack(">Hxx", port))
protocols = st.sampled_from([1, 6, 17, 58, 99, 132]).map(lambda number: struct.pack("Bxxx", number))
keys = st.tuples(addresses, protocols, ports).map(b"".join)


@given(st.dictionaries(keys, st.sampled_from(["a", "random-tcp-3", "x" * 60]), max_size=8))
def test_many_are_read_as_each_is(wanted):
    payload = message(*((key, goto(chain)) for key, chain in wanted.items()))
    one_by_one = dict(elements(payload, f"{V4} : verdict"))
    assert dict(many_elements(payload, f"{V4} : verdict")) == one_by_one
    assert sorted(one_by_one.values()) == sorted(f"goto {chain}" for chain in wanted.values())


@given(keys)
def test_a_printer_says_what_words_say(key):
    assert printer(V4)(key) == words(key, V4)


def test_each_type_has_its_words():
    key = ip_address("10.96.0.1").packed + b"\x06\0\0\0" + b"\0\x50\0\0"
    assert words(key, V4) == printer(V4)(key) == "10.96.0.1 . tcp . 80"
    six = ip_address("fd00::1").packed + b"\0\x50\0\0" + b"\0\0\0\x02"
    assert words(six, V6) == printer(V6)(six) == "fd00::1 . 80 . 2"


@pytest.mark.parametrize("order", ["big", "little"])
def test_an_index_is_read_in_either_byte_order(order):
    assert printer("integer")((513).to_bytes(4, order)) == "513"


def test_a_set_has_keys_alone():
    key = ip_address("10.0.0.1").packed
    assert dict(many_elements(message((key, b"")), "ipv4_addr")) == {"10.0.0.1": ""}


def test_an_element_without_a_key_stands_for_all_others():
    listed = attribute(1 | NESTED, attribute(2 | NESTED, goto("trap")) + attribute(3, struct.pack(">I", 2)))
    payload = message((ip_address("10.0.0.1").packed, goto("web"))) + attribute(3 | NESTED, listed)
    for read in elements, many_elements:
        assert dict(read(payload, "ipv4_addr : verdict")) == {"10.0.0.1": "goto web", "*": "goto trap"}


@pytest.mark.parametrize("unknown", ["ifname", "ipv4_addr . ether_addr"])
def test_a_type_without_words_is_refused(unknown):
    with pytest.raises(UnknownTypeError):
        list(many_elements(message((b"1234", b"")), unknown))


@given(st.binary(max_size=120))
def test_any_bytes_come_to_an_end(payload):
    for read in elements, many_elements:
        with suppress(ValueError):
            list(read(payload, f"{V4} : verdict"))
