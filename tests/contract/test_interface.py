"""The underlay interface, chosen from what a real kernel has (flannel's lookup cases, and those it lacks)."""

import subprocess
from ipaddress import ip_address, ip_network

import pytest

from controlloop.errors import OperatorError
from controlloop.family import Family
from netagent.config import InterfaceChoice, interface_choice, read_flags, settings_from
from netagent.interface import find_underlay
from netagent.interface_choice import Address, Interface, NodeInterfaces, Way, choose_underlay
from netagent.survey import survey
from subnet_alloc.codec import parse_config

NOWHERE = (
    "--iface eth9: no interface has this name or address; --iface-regex wlan: matches no interface's address or name"
)
V4, V6, DUAL = (Family.V4,), (Family.V6,), (Family.V4, Family.V6)


@pytest.fixture
def node(netns):
    """eth0 with the default route, eth1 dual stack with a second address of each family, eth2 IPv4 only."""
    ip(
        "link add eth0 type veth peer name far0",
        "link add eth1 mtu 9000 type veth peer name far1",
        "link add eth2 type veth peer name far2",
        "link set eth2 addrgenmode none",
        *(f"link set {name}{number} up" for name in ("eth", "far") for number in range(3)),
        "addr add 192.0.2.5/24 dev eth0",
        "addr add 2001:db8::5/64 dev eth0 nodad",
        "addr add 198.51.100.5/24 dev eth1",
        "addr add 198.51.100.6/24 dev eth1",
        "addr add 2001:db8:1::5/64 dev eth1 nodad",
        "addr add 203.0.113.5/24 dev eth2",
        "route add default via 192.0.2.1",
        "route add 10.99.0.0/16 via 203.0.113.1 src 203.0.113.5",
        "-6 route add default via 2001:db8::1 dev eth0",
    )
    return netns


def ip(*lines):
    for line in lines:
        subprocess.run(["ip", *line.split()], check=True)


async def chosen(*argv, families=V4):
    found = await find_underlay(interface_choice(read_flags(argv, {})), families)
    assert tuple(found) == families
    (name,) = {underlay.interface for underlay in found.values()}
    return name, *(str(underlay.address) for underlay in found.values())


async def refusal(*argv, families=V4):
    with pytest.raises(OperatorError) as caught:
        await chosen(*argv, families=families)
    return str(caught.value)


@pytest.mark.flannel("13")
@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], ("eth0", "192.0.2.5")),
        (["--iface=eth1"], ("eth1", "198.51.100.5")),
        (["--iface=198.51.100.6"], ("eth1", "198.51.100.6")),
        (["--iface=eth9", "--iface=10.0.0.1", "--iface=eth2"], ("eth2", "203.0.113.5")),
        ([r"--iface-regex=^203\.0\."], ("eth2", "203.0.113.5")),
        (["--iface-regex=100.6"], ("eth1", "198.51.100.6")),
        (["--iface-regex=h[1]$"], ("eth1", "198.51.100.5")),
        (["--iface-regex=nothing", "--iface-regex=eth2|eth1"], ("eth1", "198.51.100.5")),
        (["--iface=eth9", "--iface-regex=eth2", "--iface-can-reach=192.0.2.1"], ("eth2", "203.0.113.5")),
        (["--iface-can-reach=10.99.1.1"], ("eth2", "203.0.113.5")),
        (["--iface-can-reach=8.8.8.8"], ("eth0", "192.0.2.5")),
        (["--public-ip=198.51.100.6"], ("eth1", "198.51.100.6")),
        (["--public-ip=198.51.100.6", "--iface=eth2"], ("eth2", "203.0.113.5")),
        (["--public-ip=198.51.100.6", "--iface-regex=eth2"], ("eth2", "203.0.113.5")),
    ],
    ids=str,
)
async def test_the_interface_is_the_one_asked_for(node, argv, expected):
    assert await chosen(*argv) == expected


@pytest.mark.flannel("13")
@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], ("eth0", "192.0.2.5", "2001:db8::5")),
        (["--iface=eth1"], ("eth1", "198.51.100.5", "2001:db8:1::5")),
        (["--iface=198.51.100.6"], ("eth1", "198.51.100.6", "2001:db8:1::5")),
        (["--iface=2001:db8:1::5"], ("eth1", "198.51.100.5", "2001:db8:1::5")),
        (["--iface-regex=eth2|eth1"], ("eth1", "198.51.100.5", "2001:db8:1::5")),
        (["--iface-can-reach=2001:db8:1::9"], ("eth1", "198.51.100.5", "2001:db8:1::5")),
        (["--public-ipv6=2001:db8:1::5"], ("eth1", "198.51.100.5", "2001:db8:1::5")),
    ],
    ids=str,
)
async def test_with_two_families_the_interface_has_an_address_of_each(node, argv, expected):
    assert await chosen(*argv, families=DUAL) == expected


async def test_ipv6_alone(node):
    assert await chosen(families=V6) == ("eth0", "2001:db8::5")
    assert await chosen("--public-ipv6=2001:db8:1::5", families=V6) == ("eth1", "2001:db8:1::5")


@pytest.mark.flannel("45", "A9")
async def test_behind_nat_the_device_keeps_an_address_of_the_node(node):
    """The advertised address is nobody's here: peers are told it, and packets leave from ours."""
    assert await chosen("--public-ip=100.64.0.9") == ("eth0", "192.0.2.5")
    assert await chosen("--public-ip=100.64.0.9", "--iface=eth1") == ("eth1", "198.51.100.5")


@pytest.mark.flannel("45", "A9")
async def test_behind_nat_peers_are_told_one_address_and_packets_leave_from_another(node):
    settings = settings_from(read_flags(["--public-ip=100.64.0.9"], {}), {}, "node-a")
    surveyed = await survey(settings, parse_config(b'{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}'))
    assert surveyed.public_ip == {Family.V4: ip_address("100.64.0.9")}
    assert surveyed.underlay[Family.V4].address == ip_address("192.0.2.5")


def test_an_interface_without_mtu_carries_nothing():
    eth0 = Interface("eth0", 2, 0)
    address = Address(2, ip_address("192.0.2.5"), 0x80, ip_network("192.0.2.0/24"))
    node = NodeInterfaces([eth0], [address], {Family.V4: Way(2, None)}, None)
    with pytest.raises(OperatorError, match=r"^--iface not given: eth0 has MTU 0$"):
        choose_underlay(InterfaceChoice(), V4, node)


async def test_mtu_and_what_is_reached_directly_are_those_of_the_interface(node):
    (found,) = (await find_underlay(interface_choice(read_flags(["--iface=eth1"], {})), V4)).values()
    assert (found.mtu, found.connected) == (9000, {ip_network("198.51.100.0/24")})
    assert found.connects(ip_address("198.51.100.77"))


async def test_the_address_that_stays_is_preferred(node):
    ip(
        "addr flush dev eth2",
        "addr add 169.254.7.7/16 dev eth2",
        "addr add 203.0.113.7/24 dev eth2 valid_lft 600 preferred_lft 600",
        "addr add 203.0.113.8/24 dev eth2",
        "addr add 203.0.113.9/24 dev eth2 valid_lft 600 preferred_lft 0",
    )
    wanted = ["203.0.113.8", "203.0.113.7", "169.254.7.7"]
    for address in wanted:
        assert await chosen("--iface=eth2") == ("eth2", address)
        ip(f"addr del {address}/{16 if address.startswith('169') else 24} dev eth2")
    assert "eth2 has no IPv4 address" in await refusal("--iface=eth2")


async def test_a_pattern_goes_through_the_interfaces_in_the_kernels_order(node):
    """An address that stays on a later interface is no better match than one that may go on an earlier."""
    ip("addr change 198.51.100.5/24 dev eth1 valid_lft 600 preferred_lft 600", "addr del 198.51.100.6/24 dev eth1")
    assert await chosen(r"--iface-regex=^(198|203)") == ("eth1", "198.51.100.5")


async def test_loopback_is_matched_by_no_pattern(node):
    assert "matches no interface" in await refusal(r"--iface-regex=^127\.")


async def test_the_default_routes_of_both_families_must_agree(node):
    ip("-6 route replace default via 2001:db8:1::1 dev eth1")
    assert await refusal(families=DUAL) == (
        "--iface not given: the default routes of IPv4 and IPv6 leave by eth0 and eth1; name one"
    )


@pytest.mark.parametrize(
    ("argv", "families", "text"),
    [
        (["--iface=eth9"], V4, "--iface eth9: no interface has this name or address"),
        (["--iface=eth2"], DUAL, "--iface eth2: eth2 has no IPv6 address that peers can send to"),
        (["--iface=far0"], V4, "--iface far0: far0 has no IPv4 address that peers can send to"),
        (["--iface-regex=wlan"], V4, "--iface-regex wlan: matches no interface's address or name"),
        (["--iface-can-reach=192.0.2.5"], V4, "--iface-can-reach 192.0.2.5: this node's own address"),
        (
            ["--iface=eth9", "--iface-regex=wlan", "--public-ip=192.0.2.5"],
            V4,
            NOWHERE,
        ),
    ],
    ids=str,
)
async def test_what_leads_nowhere_is_one_line_with_flag_and_value(node, argv, families, text):
    assert await refusal(*argv, families=families) == text


async def test_without_a_way_out_the_operator_must_name_the_interface(node):
    ip("route replace unreachable default")
    assert await refusal() == "--iface not given: no IPv4 default route says which interface; name it"
    assert await refusal("--iface-can-reach=8.8.8.8") == "--iface-can-reach 8.8.8.8: No route to host"
