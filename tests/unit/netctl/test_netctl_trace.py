"""The pure parts of `netctl trace`: messages of the kernel, journeys of packets, the words of rules, capture files."""

import os
import struct
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from controlloop.errors import OperatorError
from netctl.explain.walk import Packet, Place, RouteAnswer, Verdict
from netctl.explain.walk_iptables import parse_rule
from netctl.trace.drop_reasons import read_drops
from netctl.trace.headers import headers
from netctl.trace.hearing import Hearing
from netctl.trace.journeys import SETTLED_S, SILENT_S, Journeys
from netctl.trace.log_messages import log_events
from netctl.trace.packet_filter import Called, PacketFilter, read_network, with_protocol
from netctl.trace.path import path
from netctl.trace.pcapng import PcapngWriter
from netctl.trace.rule_words import RuleWords, iptables_words, nftables_words
from netctl.trace.trace_messages import TraceEvent, trace_events

TABLE, LO = "netctl-trace-1", 1
SYN = IP(src="10.244.1.2", dst="10.96.0.10", id=7) / TCP(sport=40000, dport=80, seq=5, flags="S")
PACKET = Packet(ip_address("10.244.1.2"), Place(ip_address("10.96.0.10"), 80), "tcp")


# -- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "protocol", "ports"),
    [
        (SYN, "tcp", (40000, 80)),
        (IP(dst="10.0.0.1") / UDP(sport=5, dport=53), "udp", (5, 53)),
        (IP(dst="10.0.0.1") / ICMP(), "icmp", (0, 0)),
        (IPv6(src="fd00::1", dst="fd00::2") / TCP(sport=1, dport=2), "tcp", (1, 2)),
        (IP(dst="10.0.0.1", proto=47) / b"xxxxxxxx", "47", (0, 0)),
    ],
)
def test_headers(packet, protocol, ports):
    raw = bytes(packet)
    found = headers(raw)
    assert (found.ends.protocol, (found.ends.source.port, found.ends.to.port)) == (protocol, ports)
    assert str(found.ends.to.address) == packet.dst
    assert (found.length, found.hops_left, found.raw) == (len(raw), 64, raw)


def test_a_translated_packet_bears_the_same_mark():
    moved = SYN.copy()
    moved.dst, moved[TCP].dport = "10.244.2.2", 8080
    other = SYN.copy()
    other.id = 8
    assert headers(bytes(moved)).mark == headers(bytes(SYN)).mark != headers(bytes(other)).mark


@given(st.binary(max_size=80), st.binary(max_size=40))
def test_no_bytes_are_a_fault(network, transport):
    found = headers(network, transport)
    assert found is None or found.ends


@given(st.binary(max_size=200))
def test_no_message_is_a_fault(body):
    for kind in (10 << 8 | 17, 4 << 8):
        datagram = struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body
        assert all(isinstance(each.chain, str) for each in (*trace_events(datagram), *log_events(datagram)))


# -- journeys ---------------------------------------------------------------------------------------------------------


def ours(number, chain, packet, *, came_in=2, goes_out=0, target=""):
    return TraceEvent(
        number, "inet", TABLE, chain, "rule", 1, "jump", target, headers(bytes(packet)), came_in, goes_out
    )


def rule(number, verdict, *, chain="forward", handle=5):
    return TraceEvent(number, "ip", "fw", chain, "rule", handle, verdict, "", None, 0, 0)


def heard(*events):
    journeys = Journeys(TABLE, LO)
    for event in events:
        journeys.hear(event, 0.0)
    return journeys


def over(journeys, until):
    """When all is heard that was said before that time."""
    journeys.catch_up(until)
    return list(journeys.over())


def moved(to, port):
    packet = SYN.copy()
    packet.dst, packet[TCP].dport = to, port
    return packet


PICKED = ours(1, "pick", SYN)
TRANSLATED = ours(1, "prerouting-last", moved("10.244.2.2", 8080), target="new")


def test_the_way_of_a_packet():
    out = ours(1, "postrouting-last", moved("10.244.2.2", 8080), came_in=0, goes_out=3)
    journeys = heard(PICKED, TRANSLATED, out)
    assert not over(journeys, SETTLED_S / 2)
    (journey,) = over(journeys, SETTLED_S)
    assert [visit.hook for visit in journey.visits] == ["prerouting", "postrouting"]
    assert (journey.is_at_end, journey.state, journey.came_in) == (True, "new", 2)
    assert not journeys.has_open


def test_an_id_that_changes_on_the_way():
    out = ours(9, "forward-first", moved("10.244.2.2", 8080), goes_out=3)
    (journey,) = over(heard(PICKED, TRANSLATED, out, rule(9, "drop")), SETTLED_S)
    assert journey.is_stopped
    assert [visit.hook for visit in journey.visits] == ["prerouting", "forward"]


def test_an_id_that_is_used_again():
    again = SYN.copy()
    again.id = 8
    journeys = heard(PICKED, TRANSLATED, ours(1, "pick", again))
    assert len(over(journeys, SILENT_S)) == 2


def test_an_id_that_was_another_packet_s_before():
    """The first one keeps what is its own, and the second one finds its journey again."""
    second = SYN.copy()
    second.id = 8
    end = ours(1, "prerouting-last", SYN)
    journeys = heard(PICKED, end, ours(2, "pick", second), ours(2, "prerouting-last", second))
    journeys.hear(ours(1, "forward-first", second, goes_out=3), 0.0)
    one, two = over(journeys, SILENT_S)
    assert [len(each.visits) for each in (one, two)] == [1, 2]


def test_a_packet_of_which_nothing_more_is_heard():
    journeys = heard(PICKED)
    assert not over(journeys, SILENT_S * 0.9)
    (journey,) = over(journeys, SILENT_S)
    assert not journey.is_at_end


def test_an_id_of_a_packet_that_is_not_followed_any_more():
    """Its steps are not those of the packet that had the id before."""
    second = SYN.copy()
    second.id = 8
    journeys = heard(PICKED, TRANSLATED)
    journeys.takes_new = False
    for event in (ours(1, "pick", second), rule(1, "drop")):
        journeys.hear(event, 0.0)
    (journey,) = over(journeys, SILENT_S)
    assert not journey.is_stopped


# -- how they are heard -----------------------------------------------------------------------------------------------


class Words:
    """A netctl.trace.hearing.Source, whose every reading takes a second."""

    def __init__(self, clock, readings):
        self.overflows = 0
        self.is_drained = False
        self._clock = clock
        self._readings = readings
        self._pipe = os.pipe()
        os.write(self._pipe[1], b"there is always something")

    def fileno(self):
        return self._pipe[0]

    def read(self):
        events = self._readings.pop(0)
        self.is_drained = not self._readings
        self._clock.now += 1.0
        for event in events:
            if event is None:
                self.overflows += 1
            else:
                yield event

    def close(self):
        for end in self._pipe:
            os.close(end)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def hearing():
    """Of these readings, one after the other; gives the journeys and what reads."""
    made = []

    def hear(*readings):
        clock, journeys = Clock(), Journeys(TABLE, LO)
        made.append(Words(clock, list(readings)))
        return journeys, Hearing(journeys, made[0], None, clock)

    yield hear
    made[0].close()


ARRIVED = ours(1, "postrouting-last", moved("10.244.2.2", 8080), came_in=0, goes_out=3)


def test_a_packet_of_which_not_all_is_read_is_not_lost(hearing):
    """However long it takes to read on."""
    journeys, reader = hearing([PICKED, TRANSLATED], [ARRIVED], [], [])
    for _ in range(3):
        reader.read()
        assert not list(journeys.over())
    reader.read()
    (journey,) = journeys.over()
    assert journey.is_at_end


def test_the_end_of_a_packet_is_unknown_when_messages_were_lost(hearing):
    journeys, reader = hearing([PICKED, TRANSLATED, None], [], [])
    for _ in range(3):
        reader.read()
    (journey,) = journeys.over()
    found = path_of(journey)
    assert (found.outcome.verdict, found.lost.code) == (Verdict.UNKNOWN, "incomplete")


def test_what_arrived_did_so_whatever_else_was_lost(hearing):
    journeys, reader = hearing([None, PICKED, TRANSLATED, ARRIVED], [], [])
    for _ in range(3):
        reader.read()
    (journey,) = journeys.over()
    assert path_of(journey).outcome.verdict is Verdict.ACCEPT


def path_of(journey):
    words = RuleWords("inet fw forward", "", "", "")
    return path(journey, lambda *_: words, lambda _: RouteAnswer("unicast", "eth0"), str, lambda _: "")


def test_packets_that_others_trace():
    journeys = heard(rule(4, "accept"), ours(5, "prerouting-last", SYN))
    assert not journeys.has_open


# -- words ------------------------------------------------------------------------------------------------------------


def test_what_a_rule_of_nftables_did():
    marking = {"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"|": [{"meta": {"key": "mark"}}, 0x4000]}}}
    rule = {"handle": 4, "comment": "why #0123abcd", "expr": [marking, {"dnat": {"addr": "10.0.0.1"}}]}
    words = nftables_words("ip fw c", rule, "accept", PACKET)
    assert (words.does, words.why, words.mark) == ("mark 0x4000, dnat to 10.96.0.10:80", "why", 0x4000)
    assert words.name == "rule 4 of ip fw c: why"


def test_what_nft_cannot_read_is_named():
    match, target = {"xt": {"type": "match", "name": "comment"}}, {"xt": {"type": "target", "name": "DNAT"}}
    words = nftables_words("ip nat PREROUTING", {"handle": 4, "expr": [match, target]}, "accept", PACKET)
    assert words.does == "dnat"


@pytest.mark.parametrize(
    ("line", "does"),
    [
        ("-A FORWARD -d 10.0.0.1/32 -j DROP", "drop"),
        ("-A FORWARD -j REJECT --reject-with icmp-port-unreachable", "reject"),
        ("-A X -j MARK --set-xmark 0x4000/0x4000", "mark 0x4000"),
        ("-A PREROUTING -j NETPROXY-SERVICES", "jump NETPROXY-SERVICES"),
        ("-A PREROUTING -j SOMEBODY-ELSE", ""),
        ("-A X -p tcp -j DNAT --to-destination 10.0.0.1:80", "dnat"),
    ],
)
def test_what_a_rule_of_iptables_did(line, does):
    words = iptables_words("iptables-nft filter FORWARD", [parse_rule(line)], 0, 0)
    assert words.does == does
    assert line.split(" ", 2)[2] in words.name


# -- the filter -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        (PacketFilter(), ""),
        (PacketFilter(ip_network("10.0.0.0/8")), "ip saddr 10.0.0.0/8"),
        (PacketFilter(called=(Called(ip_network("fd00::1"), 80),)),
         "ip6 daddr fd00::1/128 meta l4proto { tcp, udp, sctp } th dport 80"),
        (PacketFilter(called=(Called(ip_network("0.0.0.0/0"), 30080, "udp", is_node_port=True),)),
         "ip daddr 0.0.0.0/0 fib daddr type local meta l4proto udp th dport 30080"),
        (PacketFilter(called=(Called(protocol="icmp"),)), "meta l4proto { icmp, icmpv6 }"),
    ],
)  # fmt: skip
def test_the_filter_as_matches(chosen, text):
    assert chosen.matches == [text]


def test_words_that_are_a_network():
    assert str(read_network("10.0.0.1")) == "10.0.0.1/32"
    assert str(read_network("[fd00::]")) == "fd00::/128"
    assert read_network("default/web") is None
    assert read_network("10.0.0.1:80") is None


def test_words_that_contradict_each_other():
    with pytest.raises(OperatorError, match="says udp"):
        with_protocol(Called(protocol="udp"), "tcp")


# -- files ------------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=60), st.text(max_size=40))
def test_blocks_of_a_capture_file_say_how_long_they_are(raw, comment):
    writer = PcapngWriter()
    data = writer.start() + writer.packet("eth0", 1, raw, 100, comment) + writer.packet("eth0", 2, raw, 100, comment)
    kinds = []
    while data:
        kind, length = struct.unpack_from("=II", data)
        assert length % 4 == 0
        assert data[length - 4 : length] == struct.pack("=I", length)
        kinds.append(kind)
        data = data[length:]
    assert kinds == [0x0A0D0D0A, 1, 6, 6]


def test_reasons_of_the_kernel():
    line = (
        b"  ping-12  [001] ..s1. 57.000123: kfree_skb: skbaddr=0000 rx_sk=0000 protocol=2048 location=ip_rcv+0x1/0x2 "
        b"reason: IP_RPFILTER"
    )
    assert [tuple(each) for each in read_drops([b"garbage", line])] == [(57.000123, 4, "IP_RPFILTER")]
