"""The kernel's words about a ruleset, taken apart; the kernel itself speaks in tests/contract."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlloop.nft.notifications import Change, changes

NEWRULE, DELRULE, DELTABLE, NEWCHAIN, DELSETELEM, NEWGEN = 6, 8, 2, 3, 14, 15


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind, *attributes, subsystem=10, port=0):
    body = struct.pack("=BBH", 2, 0, 0) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), subsystem << 8 | kind, 0, 0, port) + body + bytes(-len(body) % 4)


def test_a_rule_names_its_table_and_chain():
    said = message(DELRULE, attribute(1, b"nat\0"), attribute(2, b"POSTROUTING\0"), attribute(3, bytes(8)))
    assert list(changes(said)) == [Change("nat", "POSTROUTING", is_removal=True)]


def test_a_chain_has_its_name_elsewhere():
    said = message(NEWCHAIN, attribute(1, b"netagent\0"), attribute(2, bytes(8)), attribute(3, b"input\0"))
    assert list(changes(said)) == [Change("netagent", "input")]


def test_a_table_and_an_element_are_in_no_chain():
    said = message(DELTABLE, attribute(1, b"nat\0")) + message(
        DELSETELEM, attribute(1, b"netagent\0"), attribute(2, b"peers\0")
    )
    assert list(changes(said)) == [Change("nat", is_removal=True), Change("netagent", is_removal=True)]


def test_a_transaction_ends_with_a_generation():
    said = message(NEWRULE, attribute(1, b"ip\0")) + message(NEWGEN, attribute(1, bytes(4)))
    assert [change.table for change in changes(said)] == ["ip", ""]


def test_the_end_of_a_transaction_names_the_program():
    said = message(NEWGEN, attribute(1, bytes(4)), attribute(2, bytes(4)), attribute(3, b"firewalld\0"))
    assert list(changes(said)) == [Change("", by="firewalld")]


def test_what_our_own_programs_do_is_passed_over():
    said = message(NEWRULE, attribute(1, b"ip\0"), port=7) + message(NEWRULE, attribute(1, b"ip6\0"), port=8)
    assert list(changes(said, own_ports={7})) == [Change("ip6")]


def test_other_subsystems_are_passed_over():
    assert not list(changes(message(DELTABLE, attribute(1, b"netagent\0"), subsystem=1)))


@pytest.mark.flannel("28")
@given(st.binary(max_size=200))
def test_any_bytes_come_to_an_end(datagram):
    list(changes(datagram))


@pytest.mark.flannel("28")
@given(st.binary(max_size=60))
def test_any_attributes_come_to_an_end(body):
    list(changes(message(DELRULE, body)))
