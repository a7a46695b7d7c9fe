"""Sends COUNT router advertisements (RFC 4861) that promise a default route, a prefix and another MTU.

    advertise.py INTERFACE COUNT                        to all nodes of a link
    advertise.py NODE VNI VTEP-MAC COUNT                in VXLAN to one node, as any host on the underlay can

Run with the tests' Python.
"""

import socket
import sys

from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6NDOptMTU, ICMPv6NDOptPrefixInfo, IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"
ROUTER, ROUTER_MAC = "fe80::bad", "02:00:00:00:00:ba"
PREFIX = "2001:db8:bad::"
VXLAN_PORT = 8472


def advertisement(mac: str) -> Ether:
    """Hop limit 255, or nobody believes it."""
    options = ICMPv6NDOptPrefixInfo(prefix=PREFIX, prefixlen=64, L=1, A=1) / ICMPv6NDOptMTU(mtu=1280)
    router = IPv6(src=ROUTER, dst=ALL_NODES, hlim=255) / ICMPv6ND_RA(routerlifetime=1800)
    return Ether(src=ROUTER_MAC, dst=mac) / router / options


def on_link(interface: str, count: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((interface, 0))
        for _ in range(int(count)):
            wire.send(bytes(advertisement(ALL_NODES_MAC)))


def in_envelope(node: str, vni: str, mac: str, count: str) -> None:
    packet = bytes(VXLAN(vni=int(vni), flags="Instance") / advertisement(mac))
    family = socket.AF_INET6 if ":" in node else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        for _ in range(int(count)):
            sender.sendto(packet, (node, VXLAN_PORT))


if __name__ == "__main__":
    (on_link if len(sys.argv) == 3 else in_envelope)(*sys.argv[1:])
