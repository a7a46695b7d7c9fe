"""Devices as rtnetlink says them, against pyroute2, which was written by others from the same headers."""

from ipaddress import ip_address

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from netagent.link_messages import decode_link
from netagent.messages import HEADER
from netagent.state import IpipLink, VxlanLink, WireguardLink

MAC = "82:4b:b6:2f:54:4e"
V4, V6 = ip_address("192.0.2.1"), ip_address("2001:db8::1")
VXLAN = VxlanLink("flannel.7", 7, 8472, "eth0", V4, MAC, 1450, learning=True, gbp=True)
VXLAN_V6 = VxlanLink("flannel-v6.7", 7, 4789, "eth0", V6, MAC, 1430, alias="", up=False)
IPIP = IpipLink("flannel.ipip", V4, 1480)
WIREGUARD = WireguardLink("flannel-wg", 1420)

VXLAN_DATA = [
    ("IFLA_VXLAN_ID", 7),
    ("IFLA_VXLAN_LINK", 3),
    ("IFLA_VXLAN_LOCAL", str(V4)),
    ("IFLA_VXLAN_PORT", 8472),
    ("IFLA_VXLAN_LEARNING", 1),
    ("IFLA_VXLAN_GBP", True),
]
VXLAN_V6_DATA = [
    ("IFLA_VXLAN_ID", 7),
    ("IFLA_VXLAN_LINK", 3),
    ("IFLA_VXLAN_LOCAL6", str(V6)),
    ("IFLA_VXLAN_PORT", 4789),
    ("IFLA_VXLAN_LEARNING", 0),
]


def as_pyroute2_writes(link, kind, data=()):
    message = ifinfmsg()
    message["flags"] = int(link.up)
    info = {"attrs": [("IFLA_INFO_KIND", kind), *([("IFLA_INFO_DATA", {"attrs": data})] if data else [])]}
    message["attrs"] = [("IFLA_IFNAME", link.name), ("IFLA_MTU", link.mtu), ("IFLA_ADDRESS", MAC)]
    message["attrs"] += [("IFLA_IFALIAS", link.alias)] if link.alias else []
    message["attrs"] += [("IFLA_LINKINFO", info)]
    message.encode()
    return bytes(message.data[HEADER.size :])


@pytest.mark.parametrize(
    ("link", "kind", "data"),
    [
        (VXLAN, "vxlan", VXLAN_DATA),
        (VXLAN_V6, "vxlan", VXLAN_V6_DATA),
        (IPIP, "ipip", [("IFLA_IPIP_LOCAL", str(V4))]),
        (WIREGUARD, "wireguard", []),
        (WIREGUARD, "tun", []),  # wireguard-go's
    ],
)
def test_what_pyroute2_writes_is_what_we_read(link, kind, data):
    assert decode_link(as_pyroute2_writes(link, kind, data), {3: "eth0"}.__getitem__) == link


@pytest.mark.parametrize("kind", ["", "dummy", "bridge"])
def test_other_devices_are_not_ours_to_read(kind):
    assert decode_link(as_pyroute2_writes(WIREGUARD, kind), str) is None
