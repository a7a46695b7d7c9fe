import time
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlloop.errors import UnavailableError
from controlloop.family import Family
from subnet_alloc.allocate import CANDIDATES, NoFreeSubnetError, choose_subnets, fits, free_subnets, is_free
from subnet_alloc.codec import parse_config

SMALL = parse_config(b'{"Network":"10.5.0.0/24","SubnetLen":28,"SubnetMin":"10.5.0.32","SubnetMax":"10.5.0.192"}')
WIDE = parse_config(b'{"Network":"10.0.0.0/8","SubnetLen":24}')
DUAL = parse_config(b'{"EnableIPv6":true,"Network":"10.5.0.0/16","IPv6Network":"fc00:5::/48"}')


def v4(*texts):
    return [{Family.V4: ip_network(text)} for text in texts]


def first(candidates):
    return candidates[0]


def last(candidates):
    return candidates[-1]


def test_the_first_hundred_free_subnets_are_candidates():
    chosen = choose_subnets(WIDE, v4("10.0.1.0/24", "10.0.3.0/24"), last)
    assert chosen == {Family.V4: ip_network("10.0.102.0/24")}
    assert len(free_subnets(WIDE.ranges[Family.V4], [])) == CANDIDATES


def test_bounds_are_part_of_the_range():
    free = free_subnets(SMALL.ranges[Family.V4], [])
    assert (free[0], free[-1], len(free)) == (ip_network("10.5.0.32/28"), ip_network("10.5.0.192/28"), 11)


def test_families_are_chosen_apart_from_each_other():
    taken = [{Family.V4: ip_network("10.5.1.0/24"), Family.V6: ip_network("fc00:5:0:2::/64")}]
    assert choose_subnets(DUAL, taken, first) == {
        Family.V4: ip_network("10.5.2.0/24"),
        Family.V6: ip_network("fc00:5:0:1::/64"),
    }


def test_a_full_network_is_named_with_its_number_of_leases():
    taken = v4("10.5.0.0/25", "10.5.0.128/25", "192.168.0.0/24")
    with pytest.raises(NoFreeSubnetError, match=r"^subnet_alloc: 10.5.0.0/24 has no free /28 \(2 leased\)$") as caught:
        choose_subnets(SMALL, taken, first)
    assert isinstance(caught.value, UnavailableError)


NETWORKS = st.builds(
    lambda offset, length: ip_network((0x0A050000 + offset, length), strict=False),
    st.integers(0, 511),
    st.integers(22, 31),
)


@given(st.lists(NETWORKS, max_size=12))
def test_exactly_the_subnets_that_overlap_nothing_are_free(taken):
    subnets = list(ip_network("10.5.0.0/24").subnets(new_prefix=28))[2:13]
    expected = [subnet for subnet in subnets if not any(subnet.overlaps(other) for other in taken)]
    assert free_subnets(SMALL.ranges[Family.V4], taken) == expected


@given(st.lists(NETWORKS, max_size=5), NETWORKS)
def test_free_is_free_of_overlap(taken, wanted):
    expected = not any(wanted.overlaps(other) for other in taken)
    assert is_free({Family.V4: wanted}, [{Family.V4: other} for other in taken]) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.5.0.32/28", True),
        ("10.5.0.192/28", True),
        ("10.5.0.16/28", False),
        ("10.5.0.208/28", False),
        ("10.5.0.32/27", False),
        ("10.6.0.32/28", False),
    ],
)
def test_subnets_fit_a_configuration_that_would_lease_them(text, expected):
    assert fits(SMALL, {Family.V4: ip_network(text)}) is expected


def test_subnets_fit_only_with_exactly_the_enabled_families():
    one, both = (
        {Family.V4: ip_network("10.5.1.0/24")},
        {
            Family.V4: ip_network("10.5.1.0/24"),
            Family.V6: ip_network("fc00:5:0:1::/64"),
        },
    )
    assert fits(DUAL, both)
    assert not fits(DUAL, one)
    assert not fits(WIDE, both)


def test_ten_thousand_leases_cost_one_pass():
    taken = [ip_network((0x0A000100 + number * 256, 24)) for number in range(10_000)]
    started = time.perf_counter()
    free = free_subnets(WIDE.ranges[Family.V4], taken)
    assert free[0] == ip_network("10.39.17.0/24")
    # A scan of all leases for each candidate takes minutes.
    assert time.perf_counter() - started < 30
