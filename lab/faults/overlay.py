"""Faults of the way between nodes."""

import sys

from lab.faults.fault import PEACE_S, Fault, commands, running

LOSSY = """table bridge lossy-{target} {
 chain forward {
  type filter hook forward priority 0;
  iifname "{target}" numgen random mod 100 < 30 drop
  oifname "{target}" numgen random mod 100 < 30 drop
 }
}
"""
CUT = """table inet foreign {
 chain input {
  type filter hook input priority -10;
  udp dport 8472 drop
 }
}
"""
WRONG_CHECKSUMS = """
import socket, struct, time
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
while True:
    for _ in range(50):
        raw.sendto(struct.pack("!4H", 40000, 9, 16, 0x1234) + bytes(8), ("127.0.0.1", 0))
    time.sleep(1)
"""
SWITCH = "switch"

OVERLAY = (
    Fault(
        "loss",
        "{target} loses 30 % of its packets, each way",
        "NN113",
        ("check", "net"),
        commands("nft -f -", stdin=LOSSY, on=SWITCH),
        commands("nft delete table bridge lossy-{target}", on=SWITCH),
        is_seen_by_others=True,
    ),
    Fault(
        "link",
        "the cable of {target} is pulled",
        "NN104",
        ("check", "net"),
        commands("ip link set {target} down", on=SWITCH),
        commands("ip link set {target} up", on=SWITCH),
        is_seen_by_others=True,
    ),
    Fault(
        "mtu",
        "the underlay passes 1400 bytes to {target}, and not 1500",
        "NN105",
        ("check", "net"),
        commands("ip link set {target} mtu 1400", on=SWITCH),
        commands("ip link set {target} mtu 1500", on=SWITCH),
        is_seen_by_others=True,
    ),
    Fault(
        "vxlan",
        "a foreign rule drops the overlay's packets on {target}",
        "NN104",
        ("check", "net"),
        commands("nft -f -", stdin=CUT),
        commands("nft delete table inet foreign"),
        is_seen_by_others=True,
    ),
    Fault(
        "checksums",
        "datagrams with wrong checksums come in on {target}",
        "NN106",
        ("status",),
        *running("wrong-checksums", sys.executable, "-I", "-S", "-c", WRONG_CHECKSUMS),
        fades_s=70.0,
    ),
    Fault(
        "drift",
        "a program on {target} keeps deleting the overlay's routes",
        "NN108",
        ("status",),
        *running("deletes-routes", "sh", "-c", "while sleep 0.1; do ip route flush proto 78; done"),
        fades_s=PEACE_S,
    ),
)
