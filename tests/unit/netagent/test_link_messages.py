"""Devices as messages, against pyroute2, which was written by others from the same headers."""

from ipaddress import ip_address

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from netagent.link_messages import creation, decode_link, header, learning, mac_of, settings, state
from netagent.messages import HEADER, RTM_NEWLINK
from netagent.state import IpipLink, VxlanLink, WireguardLink

MAC = "82:4b:b6:2f:54:4e"
VXLAN = VxlanLink("flannel.7", 7, 8472, "eth0", ip_address("192.0.2.1"), MAC, 1450, learning=True, gbp=True)
VXLAN_V6 = VxlanLink("flannel-v6.7", 7, 4789, "eth0", ip_address("2001:db8::1"), MAC, 1430)
IPIP = IpipLink("flannel.ipip", ip_address("192.0.2.1"), 1480)
WIREGUARD = WireguardLink("flannel-wg", 1420)


def as_pyroute2_reads(payload):
    message = ifinfmsg(HEADER.pack(HEADER.size + len(payload), RTM_NEWLINK, 0, 0, 0) + payload)
    message.decode()
    return message


@pytest.mark.parametrize("link", [VXLAN, VXLAN_V6])
def test_a_vxlan_device_is_made_with_all_that_its_driver_fixes(link):
    read = as_pyroute2_reads(creation(link, parent=3))
    data = read.get(("linkinfo", "data"))
    family = "vxlan_local" if link.local.version == 4 else "vxlan_local6"
    assert (read.get("ifname"), read.get("address"), read.get("mtu")) == (link.name, MAC, link.mtu)
    assert read.get(("linkinfo", "kind")) == "vxlan"
    assert (data.get("vxlan_id"), data.get("vxlan_link"), data.get("vxlan_port")) == (7, 3, link.port)
    assert data.get(family) == str(link.local)
    assert bool(data.get("vxlan_learning")) is link.learning
    assert ("IFLA_VXLAN_GBP" in dict(data["attrs"])) is link.gbp


def test_an_ipip_device_has_its_own_address():
    read = as_pyroute2_reads(creation(IPIP, parent=0))
    assert (read.get(("linkinfo", "kind")), read.get(("linkinfo", "data")).get("ipip_local")) == ("ipip", "192.0.2.1")


def test_a_wireguard_device_needs_no_more_than_its_name():
    read = as_pyroute2_reads(creation(WIREGUARD, parent=0))
    assert (read.get("ifname"), read.get(("linkinfo", "kind"))) == ("flannel-wg", "wireguard")


def test_the_mac_is_set_only_when_it_differs():
    assert as_pyroute2_reads(settings(VXLAN, 5, MAC)).get("address") is None
    read = as_pyroute2_reads(settings(VXLAN, 5, "82:00:00:00:00:01"))
    assert (read["index"], read.get("address"), read.get("mtu")) == (5, MAC, 1450)
    assert read.get("ifalias") == VXLAN.alias


def test_learning_and_up_are_changed_on_the_device_of_that_index():
    read = as_pyroute2_reads(learning(VXLAN_V6, 5))
    assert (read["index"], read.get(("linkinfo", "data")).get("vxlan_learning")) == (5, 0)
    up = as_pyroute2_reads(state(VXLAN, 5))
    assert (up["index"], up["flags"], up["change"]) == (5, 1, 1)


@pytest.mark.parametrize("link", [VXLAN, VXLAN_V6, IPIP])
def test_what_a_device_was_made_with_is_what_is_read(link):
    made = creation(link, parent=3)
    whole = made + settings(link, 0, "")[len(header(0)) :]
    found = decode_link(state(link, 5) + whole[len(header(0)) :], {3: "eth0"}.__getitem__)
    assert found == link


def test_wireguard_go_has_a_tun_device():
    message = ifinfmsg()
    message["flags"] = 1
    attributes = [("IFLA_IFNAME", "flannel-wg"), ("IFLA_MTU", 1420), ("IFLA_IFALIAS", WIREGUARD.alias)]
    message["attrs"] = [*attributes, ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "tun")]})]
    message.encode()
    assert decode_link(bytes(message.data[HEADER.size :]), str) == WIREGUARD


def test_other_devices_are_not_ours_to_read():
    assert decode_link(header(3), str) is None
    assert mac_of(header(3)) == ""
