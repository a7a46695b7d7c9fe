"""What `netctl explain` sees of a kernel, and what it sees of a record of the same kernel: one and the same."""

import os
import subprocess
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest
from deadline import eventually
from settled import has_settled

from controlloop.family import Family
from netctl.explain.command import travelled
from netctl.explain.kernel import KernelSight
from netctl.explain.recorded import RecordedRules, RecordedSight
from netctl.explain.rules import RuleReader
from netctl.explain.walk import Packet, Place, Unsure, Verdict
from netctl.node import LiveNode

SEED = int(os.environ.get("SIGHT_SEED", "1"))
ROUNDS = 400
LINKS = """
ip link add eth0 type veth peer name far0
ip link add eth1 type veth peer name far1
ip link add vx0 address 02:00:00:00:00:01 type vxlan id 1 dstport 8472 local 10.0.0.1 nolearning
ip address add 10.0.0.1/16 dev eth0
ip address add 10.0.0.9/16 dev eth0
ip address add 192.168.5.1/24 dev eth1
ip address add 10.244.1.0/32 dev vx0
ip -6 address add fd00:10::1/64 dev eth0 nodad
ip -6 address add fd00:5::1/64 dev eth1 nodad
ip link set eth0 up
ip link set eth1 up
ip link set far0 up
ip link set far1 up
ip link set vx0 up
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.eth1.forwarding=0 net.ipv4.conf.vx0.rp_filter=1
ip route add default via 10.0.255.1
ip route add 10.244.2.0/24 via 10.244.2.0 dev vx0 onlink
ip route add 10.244.3.0/24 via 10.244.3.0 dev vx0 onlink mtu 1300
ip route add blackhole 10.244.4.0/24
ip route add unreachable 10.244.5.0/24
ip route add prohibit 10.244.6.0/24
ip route add 10.244.6.64/26 dev eth1
ip route add 10.250.0.0/16 via 192.168.5.9 metric 20
ip route add 10.250.0.0/16 via 10.0.0.77 metric 10
ip route add 10.251.0.0/16 via 10.0.0.77 src 10.0.0.9
ip route add throw 10.252.0.0/16 table 77
ip route add 10.252.0.0/15 via 192.168.5.7 table 77
ip route add 10.252.0.0/14 via 10.0.0.8
ip rule add to 10.252.0.0/14 table 77 priority 90
ip rule add fwmark 0x4000/0x4000 table 88 priority 91
ip route add 10.0.0.0/8 via 192.168.5.88 table 88
ip rule add from 192.168.5.0/24 to 10.99.0.0/16 unreachable priority 92
ip rule add not to 10.0.0.0/8 lookup main suppress_prefixlength 0 priority 93
ip -6 route add default via fd00:10::ff
ip -6 route add fd00:244:2::/64 via fd00:5::9
ip -6 route add blackhole fd00:244:4::/64
ip -6 route add unreachable fd00:244:5::/64
ip -6 route add fd00:244:6::/64 dev eth1 mtu 1400
ip -6 rule add fwmark 0x4000/0x4000 table 88 priority 91
ip -6 route add fd00::/16 via fd00:5::88 table 88
ip neighbor add 10.244.2.0 lladdr 02:00:00:00:00:02 dev vx0 nud permanent
ip neighbor add 10.0.255.1 lladdr 02:00:00:00:00:fe dev eth0
bridge fdb add 02:00:00:00:00:02 dev vx0 dst 10.0.0.2 self permanent
"""
HEADS = {
    Family.V4: ("10.244.", "10.25", "10.0.0.", "10.99.1.", "192.168.5.", "8.8.", "127.0.0.", "10.244.6."),
    Family.V6: ("fd00:10::", "fd00:244:2::", "fd00:244:4::", "fd00:244:5::", "fd00:244:6::", "fd00:5::", "2001:db8::"),
}


@pytest.fixture
def wired(netns):
    for line in LINKS.strip().splitlines():
        subprocess.run(line.split(), check=True)
    eventually(lambda: has_settled(output))
    return netns


def output(argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def sights(family):
    return KernelSight(family), RecordedSight(family, LiveNode(Path("/nonexistent")))


def random_address(random, family):
    head = random.choice(HEADS[family])
    if family is Family.V6:
        return ip_address(f"{head}{random.choice((1, 2, 9, 0x99)):x}")
    parts = [part for part in head.split(".") if part]
    if head == "10.25":
        parts = ["10", str(random.randint(250, 255))]
    return ip_address(
        ".".join([*parts, *(str(random.choice((0, 1, 2, 3, 4, 5, 6, 9, 70, 255))) for _ in range(4 - len(parts)))])
    )


@pytest.mark.parametrize(("family", "ipv6_forwards"), [(Family.V4, "1"), (Family.V6, "0"), (Family.V6, "1")])
def test_routes(wired, family, ipv6_forwards):
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text(ipv6_forwards)
    random = Random(SEED)
    live, recorded = sights(family)
    own = [
        ip_address(text)
        for text in ("10.0.0.1", "10.0.0.9", "192.168.5.1", "127.0.0.1", "fd00:10::1", "fd00:5::1", "::1")
    ]
    sources = [None, *(each for each in own if Family.of(each) is family)]
    wrong, seen = [], set()
    with closing(live):
        for _ in range(ROUNDS):
            to, mark = random_address(random, family), random.choice((0, 0, 0x4000))
            came_in = random.choice(("", "", "eth0", "eth1", "vx0"))
            source = random_address(random, family) if came_in else random.choice(sources)
            if to.is_loopback and source is None and came_in:
                continue
            wanted, found = live.route(to, source, came_in, mark), recorded.route(to, source, came_in, mark)
            seen.add(wanted.kind)
            if wanted != found:
                wrong.append(f"{to} from {source} iif {came_in or '-'} mark {mark:#x}: {wanted} not {found}")
            if live.matched(to).prefix != recorded.matched(to).prefix:
                wrong.append(f"{to}: {live.matched(to)} not {recorded.matched(to)}")
            assert live.is_local(to) == recorded.is_local(to)
    assert not wrong, f"{len(wrong)}\n" + "\n".join(wrong[:12])
    assert {"unicast", "local", "blackhole", "unreachable"} <= seen
    assert ("no-forwarding" in seen) is (family is Family.V4 or ipv6_forwards == "0")


def test_what_routes_lead_over(wired):
    live, recorded = sights(Family.V4)
    gateway, nobody = ip_address("10.244.2.0"), ip_address("10.244.3.0")
    with closing(live):
        for device, address in ("vx0", gateway), ("vx0", nobody), ("eth0", ip_address("10.0.255.1")):
            assert live.neighbor(device, address) == recorded.neighbor(device, address)
        for mac in ("02:00:00:00:00:02", "02:00:00:00:00:03"):
            assert live.tunnel_end("vx0", mac) == recorded.tunnel_end("vx0", mac)
        assert recorded.tunnel_end("vx0", "02:00:00:00:00:02") == ip_address("10.0.0.2")
        for device in ("lo", "eth0", "vx0"):
            assert live.link(device) == recorded.link(device)


SETS = """
table ip t {
 map m { type ipv4_addr . inet_proto . inet_service : verdict; elements = {
    10.0.0.1 . tcp . 80 : goto c, 10.0.0.2 . udp . 53 : drop }; }
 map n { type ipv4_addr . inet_service : ipv4_addr . inet_service; elements = { 10.0.0.1 . 80 : 10.1.0.1 . 8080 }; }
 set s { type ipv4_addr; flags timeout; elements = { 10.0.0.7 timeout 1h }; }
 set r { type ipv4_addr; flags interval; elements = { 10.0.0.0/24, 10.2.0.1-10.2.0.9 }; }
 set e { type ether_addr; elements = { 02:00:00:00:00:01 }; }
 map v { type ipv4_addr : verdict; flags interval; elements = { 10.9.0.0/24 : drop }; }
 chain c { }
}
"""
ASKED = [
    ("m", "ipv4_addr . inet_proto . inet_service : verdict", "10.0.0.1 . tcp . 80"),
    ("m", "ipv4_addr . inet_proto . inet_service : verdict", "10.0.0.2 . udp . 53"),
    ("m", "ipv4_addr . inet_proto . inet_service : verdict", "10.0.0.2 . udp . 54"),
    ("n", "ipv4_addr . inet_service : ipv4_addr . inet_service", "10.0.0.1 . 80"),
    ("n", "ipv4_addr . inet_service : ipv4_addr . inet_service", "10.0.0.1 . 81"),
    ("s", "ipv4_addr", "10.0.0.7"),
    ("s", "ipv4_addr", "10.0.0.8"),
    ("e", "ether_addr", "02:00:00:00:00:01"),
    ("nowhere", "ipv4_addr", "10.0.0.8"),
]


def or_unsure(ask, *words):
    try:
        return ask(*words)
    except Unsure as reason:
        return f"unsure: {reason}"


def test_elements(netns):
    subprocess.run(["nft", "-f", "-"], input=SETS, text=True, check=True)
    live, recorded = sights(Family.V4)
    with closing(live):
        found = [(or_unsure(live.element, "ip t", *each), or_unsure(recorded.element, "ip t", *each)) for each in ASKED]
        assert [mine for mine, _ in found] == [theirs for _, theirs in found]
        assert found[0][0] == "goto c"
        for name in ("r", "v"):
            assert or_unsure(live.ranges, "ip t", name) == or_unsure(recorded.ranges, "ip t", name)


RULES = """
iptables-nft -t nat -A PREROUTING -d 10.96.0.1/32 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.2:8080
iptables-nft -A FORWARD -s 10.3.0.0/16 -j DROP
iptables-legacy -A FORWARD -s 10.4.0.0/16 -j REJECT
iptables-legacy -t nat -A PREROUTING -d 10.96.0.2/32 -p tcp -j DNAT --to-destination 10.0.0.3:80
"""
FOREIGN = "table inet fw { chain f { type filter hook forward priority 10; tcp dport 81 drop; }; }"


def test_rules_of_all_programs(wired):
    for line in RULES.strip().splitlines():
        subprocess.run(line.split(), check=True)
    subprocess.run(["nft", FOREIGN], check=True)
    live, recorded = sights(Family.V4)
    readers = RuleReader(Family.V4, live), RecordedRules(Family.V4, recorded, LiveNode(Path("/nonexistent")))
    with closing(live):
        for source, to, port in [
            *(("10.7.0.1", "10.96.0.1", 80), ("10.7.0.1", "10.96.0.2", 443), ("10.3.0.1", "10.96.0.1", 80)),
            *(("10.4.0.1", "8.8.8.8", 53), ("10.7.0.1", "8.8.8.8", 81), ("10.7.0.1", "10.0.0.1", 22)),
        ]:
            packet = Packet(ip_address(source), Place(ip_address(to), port), "tcp", came_in="eth0")
            told = [walked(sight, reader, packet) for sight, reader in zip((live, recorded), readers, strict=True)]
            assert told[0] == told[1]
            assert len(told[0][0]) == 1


def walked(sight, reader, packet):
    return travelled(packet, sight, reader)


UNSHOWN = """
insert rule ip filter FORWARD tcp dport { 81, 90-99 } drop
add rule ip filter FORWARD ip saddr 10.8.0.1 numgen random mod 2 0 drop
"""


def test_a_chain_that_iptables_cannot_show(wired):
    """`iptables-nft -S FORWARD` refuses, and says with the same exit status that there is no such chain."""
    subprocess.run(["iptables-nft", "-A", "FORWARD", "-s", "10.7.0.0/16", "-j", "REJECT"], check=True)
    subprocess.run(["nft", "-f", "-"], input=UNSHOWN, text=True, check=True)
    live, recorded = sights(Family.V4)
    readers = RuleReader(Family.V4, live), RecordedRules(Family.V4, recorded, LiveNode(Path("/nonexistent")))
    with closing(live):
        for port, verdict in {81: Verdict.DROP, 95: Verdict.DROP}.items():
            packet = Packet(ip_address("10.7.0.1"), Place(ip_address("8.8.8.8"), port), "tcp", came_in="eth0")
            mine, theirs = (walked(*each, packet) for each in zip((live, recorded), readers, strict=True))
            assert mine == theirs
            assert [end.verdict for end in mine[0]] == [verdict]


NATIVE = """
table ip filter {
    set guests { type ipv4_addr; elements = { 10.7.0.1 }; }
    map doors { type inet_service : verdict; elements = { 83 : goto behind, 84 : accept }; }
    chain front { type filter hook forward priority 0; tcp dport 80 drop; tcp dport 82 jump behind; goto more; }
    chain more { tcp dport vmap @doors; }
    chain behind { ip saddr @guests reject; }
    chain closed { type filter hook input priority 10; policy drop; tcp dport 22 accept; }
}
table ip nat { chain first { type nat hook prerouting priority -110; tcp dport 85 dnat to 10.0.0.9:22; }; }
"""
INTO_NATIVE = {
    ("8.8.8.8", 80): Verdict.DROP,
    ("8.8.8.8", 81): Verdict.ACCEPT,
    ("8.8.8.8", 82): Verdict.REJECT,
    ("8.8.8.8", 83): Verdict.REJECT,
    ("8.8.8.8", 84): Verdict.ACCEPT,
    ("10.0.0.1", 22): Verdict.ACCEPT,
    ("10.0.0.1", 23): Verdict.DROP,
    ("8.8.8.8", 85): Verdict.ACCEPT,
}


@pytest.mark.parametrize("shared", [True, False], ids=["beside-iptables", "alone"])
def test_native_chains_in_tables_named_like_those_of_iptables(wired, shared):
    """iptables does not tell of them, and prints its own as if they were all."""
    if shared:
        for line in RULES.strip().splitlines():
            subprocess.run(line.split(), check=True)
    subprocess.run(["nft", "-f", "-"], input=NATIVE, text=True, check=True)
    live, recorded = sights(Family.V4)
    readers = RuleReader(Family.V4, live), RecordedRules(Family.V4, recorded, LiveNode(Path("/nonexistent")))
    with closing(live):
        for (to, port), verdict in INTO_NATIVE.items():
            packet = Packet(ip_address("10.7.0.1"), Place(ip_address(to), port), "tcp", came_in="eth0")
            (ends, notes), theirs = (
                walked(sight, reader, packet) for sight, reader in zip((live, recorded), readers, strict=True)
            )
            assert (ends, notes) == theirs
            assert [each.verdict for each in ends] == [verdict], (to, port)
            assert notes.warnings == {}
