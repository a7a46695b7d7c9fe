"""Leases that would turn this node's own traffic away from it, and those that must pass."""

from dataclasses import replace
from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlloop.family import Family
from netagent.trust import RESERVED, Ground, objection

MAC, OUR_MAC = "82:4b:b6:2f:54:4e", "02:00:00:00:00:01"
GROUND = {
    Family.V4: Ground(
        network=ip_network("10.244.0.0/16"),
        own_subnet=ip_network("10.244.1.0/24"),
        own_addresses=[ip_address("10.10.0.1"), ip_address("203.0.113.1")],
        underlay=[ip_network("10.10.0.0/24"), ip_network("10.244.240.0/24")],
        service_cidrs=[ip_network("10.96.0.0/12"), ip_network("10.244.128.0/20"), ip_network("fd00:96::/108")],
        own_mac=OUR_MAC,
    ),
    Family.V6: Ground(
        network=ip_network("fd00:244::/48"),
        own_subnet=ip_network("fd00:244:0:1::/64"),
        own_addresses=[ip_address("fd00:10::1")],
        underlay=[ip_network("fd00:10::/64"), ip_network("fd00:244:0:f0::/64")],
        service_cidrs=[ip_network("fd00:96::/108"), ip_network("fd00:244:0:80::/60"), ip_network("10.96.0.0/12")],
        own_mac=OUR_MAC,
    ),
}
SUBNET = {Family.V4: "10.244.2.0/24", Family.V6: "fd00:244:0:2::/64"}
PUBLIC_IP = {Family.V4: "10.10.0.2", Family.V6: "fd00:10::2"}


def judged(family, *, subnet=None, public_ip=None, mac=MAC, ground=None):
    address = public_ip if public_ip is None or not isinstance(public_ip, str) else ip_address(public_ip)
    return objection(
        ip_network(subnet or SUBNET[family]),
        address if public_ip is not None else ip_address(PUBLIC_IP[family]),
        mac,
        ground or GROUND[family],
    )


GOOD = {
    "a peer on our link": {},
    "a peer behind a router": {"public_ip": "198.51.100.7"},
    "a backend without a MAC": {"mac": None},
    "a smaller subnet": {"subnet": "10.244.9.128/25"},
    "a larger subnet": {"subnet": "10.244.8.0/22"},
    "class E is an address like others": {"public_ip": "240.0.0.9"},
    "the last address of a smaller link behind a router": {"public_ip": "10.10.1.255"},
}


@pytest.mark.parametrize("case", GOOD)
def test_an_honest_peer_is_followed(case):
    assert judged(Family.V4, **GOOD[case]) == ""


def test_an_honest_peer_is_followed_over_ipv6():
    assert judged(Family.V6) == ""


BAD_SUBNETS = {
    Family.V4: [
        ("0.0.0.0/0", "default route"),
        ("0.0.0.0/1", "this network"),
        ("0.0.0.0/8", "this network"),
        ("0.0.0.0/32", "this network"),
        ("128.0.0.0/1", "overlaps"),
        ("127.0.0.0/8", "loopback"),
        ("127.0.0.1/32", "loopback"),
        ("127.0.0.0/24", "loopback"),
        ("126.0.0.0/7", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("169.254.169.254/32", "link-local"),
        ("169.254.0.0/15", "link-local"),
        ("224.0.0.0/4", "multicast"),
        ("224.0.0.0/24", "multicast"),
        ("239.255.255.0/24", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "broadcast"),
        ("255.255.255.0/24", "broadcast"),
        ("10.244.1.0/24", "overlaps ours"),
        ("10.244.1.0/25", "overlaps ours"),
        ("10.244.1.7/32", "overlaps ours"),
        ("10.244.0.0/23", "overlaps ours"),
        ("10.244.0.0/16", "overlaps ours"),
        ("10.0.0.0/8", "overlaps ours"),
        ("10.10.0.0/24", "our address 10.10.0.1"),
        ("10.10.0.1/32", "our address 10.10.0.1"),
        ("10.10.0.0/16", "our address 10.10.0.1"),
        ("203.0.113.0/24", "our address 203.0.113.1"),
        ("10.10.0.64/26", "underlay"),
        ("10.10.0.254/32", "underlay"),
        ("10.244.240.0/24", "underlay"),
        ("10.244.240.128/25", "underlay"),
        ("10.244.224.0/19", "underlay"),
        ("10.96.0.0/12", "services"),
        ("10.96.0.1/32", "services"),
        ("10.244.128.0/24", "services"),
        ("10.244.143.255/32", "services"),
        ("10.245.0.0/24", "outside the network"),
        ("192.0.2.0/24", "outside the network"),
        ("8.8.8.8/32", "outside the network"),
        ("172.16.0.0/12", "outside the network"),
        ("240.0.0.0/24", "outside the network"),
    ],
    Family.V6: [
        ("::/0", "default route"),
        ("::/1", "loopback"),
        ("8000::/1", "link-local"),
        ("2000::/3", "outside the network"),
        ("::1/128", "loopback"),
        ("::/128", "unspecified"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("::ffff:10.244.2.0/120", "IPv4-mapped"),
        ("fe80::/10", "link-local"),
        ("fe80::/64", "link-local"),
        ("fe80::1/128", "link-local"),
        ("ff00::/8", "multicast"),
        ("ff02::1/128", "multicast"),
        ("fd00:244:0:1::/64", "overlaps ours"),
        ("fd00:244::/48", "overlaps ours"),
        ("fd00:244:0:1::7/128", "overlaps ours"),
        ("fd00::/8", "overlaps ours"),
        ("fd00:10::/64", "our address"),
        ("fd00:10::8000:0:0:0/65", "underlay"),
        ("fd00:244:0:f0::/64", "underlay"),
        ("fd00:96::/112", "services"),
        ("fd00:244:0:80::/64", "services"),
        ("fd00:245::/64", "outside the network"),
        ("2001:db8::/64", "outside the network"),
    ],
}

BAD_ADDRESSES = {
    Family.V4: [
        ("0.0.0.0", "this network"),
        ("0.1.2.3", "this network"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("169.254.169.254", "link-local"),
        ("224.0.0.1", "multicast"),
        ("239.1.1.1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("10.10.0.1", "is ours"),
        ("203.0.113.1", "is ours"),
        ("10.10.0.255", "broadcast address of the underlay"),
        ("10.10.0.0", "broadcast address of the underlay"),
        ("10.244.2.9", "inside its own subnet"),
        ("10.244.2.0", "inside its own subnet"),
        ("10.244.1.5", "inside our subnet"),
        ("10.96.0.1", "services"),
        ("fd00:10::2", "not an IPv4 address"),
    ],
    Family.V6: [
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::ffff:10.10.0.2", "IPv4-mapped"),
        ("::ffff:127.0.0.1", "IPv4-mapped"),
        ("fe80::2", "link-local"),
        ("ff02::1", "multicast"),
        ("ff0e::1", "multicast"),
        ("fd00:10::1", "is ours"),
        ("fd00:244:0:2::9", "inside its own subnet"),
        ("fd00:244:0:1::9", "inside our subnet"),
        ("fd00:96::1", "services"),
        (IPv6Address("fd00:10::2%eth0"), "scope"),
        ("10.10.0.2", "not an IPv6 address"),
    ],
}

BAD_MACS = [
    ("00:00:00:00:00:00", "all zero"),
    ("ff:ff:ff:ff:ff:ff", "multicast"),
    ("01:00:5e:00:00:01", "multicast"),
    ("33:33:00:00:00:01", "multicast"),
    (OUR_MAC, "is ours"),
    ("", "not a MAC"),
    ("82:4b:b6:2f:54", "not a MAC"),
    ("82:4b:b6:2f:54:4e:00", "not a MAC"),
    ("82:4B:B6:2F:54:4E", "not a MAC"),
    ("82:4b:b6:2f:54:4e\n", "not a MAC"),
    ("zz:4b:b6:2f:54:4e", "not a MAC"),
]


def test_there_are_enough_attacks():
    assert sum(map(len, [*BAD_SUBNETS.values(), *BAD_ADDRESSES.values(), BAD_MACS])) >= 60


def cases(table):
    return [(family, *case) for family, listed in table.items() for case in listed]


@pytest.mark.parametrize(("family", "subnet", "why"), cases(BAD_SUBNETS))
def test_a_subnet_that_is_not_the_peers_to_have_is_refused(family, subnet, why):
    answer = judged(family, subnet=subnet)
    assert f"subnet {ip_network(subnet)} " in answer
    assert why in answer


@pytest.mark.parametrize(("family", "address", "why"), cases(BAD_ADDRESSES))
def test_an_address_that_leads_elsewhere_is_refused(family, address, why):
    answer = judged(family, public_ip=address)
    assert answer.startswith("public IP ")
    assert why in answer


@pytest.mark.parametrize(("mac", "why"), BAD_MACS)
def test_a_mac_that_no_vtep_has_is_refused(mac, why):
    answer = judged(Family.V4, mac=mac)
    assert answer.startswith("VtepMAC ")
    assert why in answer


def test_a_lease_without_a_public_ip_is_refused():
    answer = objection(ip_network(SUBNET[Family.V4]), None, MAC, GROUND[Family.V4])
    assert answer == "public IP None: not an IPv4 address"


def test_a_subnet_of_the_other_family_is_refused():
    assert judged(Family.V4, subnet=SUBNET[Family.V6]) == "subnet fd00:244:0:2::/64: not an IPv4 network"


def test_a_link_of_two_addresses_has_no_broadcast_address():
    ground = replace(GROUND[Family.V4], underlay=[ip_network("10.10.0.2/31")])
    assert judged(Family.V4, public_ip="10.10.0.3", ground=ground) == ""


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_no_subnet_that_passes_takes_anything_of_ours(address, length):
    ground = GROUND[Family.V4]
    subnet = ip_network((address, length), strict=False)
    if judged(Family.V4, subnet=str(subnet)):
        return
    taken = [ground.own_subnet, *ground.underlay, *(each for each in ground.service_cidrs if each.version == 4)]
    taken += [network for _, network in RESERVED[Family.V4]]
    assert not any(subnet.overlaps(each) for each in taken)
    assert subnet.subnet_of(ground.network)
