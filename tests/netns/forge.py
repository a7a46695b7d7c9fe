"""Sends COUNT VXLAN packets (RFC 7348) to NODE, each with a datagram for POD inside, as any host on the underlay can.

Run with the tests' Python: `forge.py NODE VTEP-MAC POD COUNT`.
"""

import socket
import sys

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

VXLAN_PORT = 8472
DISCARD_PORT = 9


def main() -> None:
    node, vtep_mac, pod, count = sys.argv[1:]
    frame = Ether(dst=vtep_mac, src="02:00:00:00:00:99") / IP(src="10.244.250.9", dst=pod)
    packet = bytes(VXLAN(vni=1, flags="Instance") / frame / UDP(sport=9, dport=DISCARD_PORT) / b"forged")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(int(count)):
            sender.sendto(packet, (node, VXLAN_PORT))


if __name__ == "__main__":
    main()
