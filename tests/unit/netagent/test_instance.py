"""What tells the overlays of one node apart."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netagent.backends.backend import Node
from netagent.backends.vxlan import Vxlan
from netagent.desired import marked
from netagent.firewall.iptables import owned
from netagent.instance import FIRST, LIMIT, Instance
from netagent.link_messages import is_ours
from netagent.messages import LinkLabel
from netagent.state import WireguardLink, direct_route

numbers = st.integers(0, LIMIT)
MARKS = ("alias", "protocol", "program", "chain_prefix")


def test_the_first_one_carries_the_names_that_a_node_with_one_agent_has():
    assert [getattr(FIRST, mark) for mark in MARKS] == ["nodenet", 78, "netagent", "NETAGENT-"]
    assert [getattr(Instance(2), mark) for mark in MARKS] == ["nodenet2", 76, "netagent2", "NETAGENT2-"]


@pytest.mark.parametrize("mark", MARKS)
def test_no_two_share_a_mark(mark):
    assert len({getattr(Instance(number), mark) for number in range(LIMIT + 1)}) == LIMIT + 1


@given(numbers, numbers)
def test_no_chain_belongs_to_two(one, other):
    assert owned(Instance(one)).is_ours(f"{Instance(other).chain_prefix}FORWARD") is (one == other)


def label(name="flannel.1", alias="", kind="vxlan", *, up=True):
    return LinkLabel(name, kind, alias, up)


@pytest.mark.parametrize(
    ("number", "wanted", "device", "expected"),
    [
        (0, (), label(alias="nodenet"), True),
        (0, (), label("renamed", alias="nodenet"), True),
        (0, (), label(), True),
        (0, ("flannel.1",), label(alias="nodenet2"), False),
        (0, (), label(alias="somebody's"), True),
        (0, (), label(up=False), False),
        (0, ("flannel.1",), label(up=False), True),
        (0, (), label(alias="nodenet", up=False), True),
        (0, (), label("vxlan7"), False),
        (0, (), label(kind="bridge"), False),
        (2, (), label(alias="nodenet2"), True),
        (2, ("flannel.1",), label(alias="nodenet"), False),
        (2, ("flannel.1",), label(), True),
        (2, ("flannel.2",), label(), False),
        (2, ("flannel.1",), label(alias="changed by somebody"), True),
    ],
)
def test_whose_a_device_is(number, wanted, device, expected):
    assert is_ours(device, Instance(number), wanted) is expected


def test_every_object_that_can_carries_the_mark():
    link = WireguardLink("flannel-wg", 1420)
    route = direct_route(ip_network("10.5.1.0/24"), ip_address("192.0.2.1"), "eth0")
    state = marked([link, route], Instance(3))
    assert set(state.values()) == {replace(link, alias="nodenet3"), replace(route, protocol=75)}
    assert set(marked([link, route], FIRST).values()) == {link, route}


def test_a_node_is_of_the_first_one_unless_told_otherwise():
    assert Node("node-a", Vxlan(), {}, {}).instance == FIRST
