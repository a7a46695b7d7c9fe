"""Packets that no honest caller sends, put on the cable by hand."""

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from calls import HOME_PORT, Call, Switchboard
from namespace import inside
from network import ADDRESSES
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from controlloop.family import Family, IPAddress
from lab.wiring import ip

WITHIN_S = 30.0
ALL_PROTOCOLS = 3  # ETH_P_ALL
FAR_OUTSIDE = 1 << 30
"""Of any TCP window."""
DISCARD_PORT = 9


def throw(board: Switchboard, caller: str, targets: Sequence[tuple[IPAddress, int]]) -> Counter[str]:
    """Send node-1 a datagram for each target, whatever the caller's routes say; who heard of how many.

    One more goes to the node itself and must arrive: what went before it on the same cable has had its time then.
    """
    mac = json.loads(ip("-n", board.network.namespace("node-1"), "-j", "link", "show", "eth0"))[0]["address"]
    board.heard.clear()
    with inside(board.network.namespace(caller)), _cable() as cable:
        for target, port in targets:
            cable.send(_frame(mac, caller, target, port, b"thrown"))
        cable.send(_frame(mac, caller, ADDRESSES["node-1"][Family.of(targets[0][0])], HOME_PORT, b"last"))
    deadline = time.monotonic() + WITHIN_S
    while not board.heard[b"last"]:
        assert time.monotonic() < deadline, "a datagram for the node itself has not arrived"
        board.pump()
    return Counter(board.heard[b"thrown"])


def stray(board: Switchboard, server: str, call: Call) -> None:
    """Send the caller of a TCP connection a packet of its server from far outside of the window, and with the right
    acknowledgement: were it answered with a reset, the server would believe that.
    """
    with inside(board.network.namespace(server)), _cable() as cable:
        board.echo(call, b"?", within_s=WITHIN_S)
        *_, last = _sent_to(cable, call.own_port)
        last[TCP].seq = (last[TCP].seq + FAR_OUTSIDE) % (1 << 32)
        last[TCP].flags = "A"
        last[TCP].remove_payload()
        for computed in ("chksum", "len", "plen"):
            for layer in (last.payload, last[TCP]):
                if computed in layer.fields:
                    delattr(layer, computed)
        cable.send(bytes(last))
    board.pump()


def _cable() -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
    opened.bind(("eth0", 0))
    opened.setblocking(False)
    return opened


def _frame(mac: str, caller: str, target: IPAddress, port: int, payload: bytes) -> bytes:
    source = ADDRESSES[caller][Family.of(target)]
    header = (IP if target.version == 4 else IPv6)(src=str(source), dst=str(target))
    return bytes(Ether(dst=mac) / header / UDP(sport=DISCARD_PORT, dport=port) / payload)


def _sent_to(cable: socket.socket, port: int) -> Iterator[Packet]:
    """Segments that this host has sent to a port."""
    while True:
        try:
            data, (_, _, kind, *_) = cable.recvfrom(65536)
        except BlockingIOError:
            return
        frame = Ether(data)
        if kind == socket.PACKET_OUTGOING and TCP in frame and frame[TCP].dport == port:
            yield frame
