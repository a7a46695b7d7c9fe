"""The smaller parts of `netctl explain`: words, matches, the way behind the rules, and how a real packet is judged."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from controlloop.errors import OperatorError
from controlloop.nft.elements import UnknownTypeError
from netctl.explain.explanation import Explanation
from netctl.explain.flow_words import Target, read_target
from netctl.explain.iptables_matches import Question, answer
from netctl.explain.nft_requests import key_bytes
from netctl.explain.reasons import service_named
from netctl.explain.rules import chain_in
from netctl.explain.verify import Sent, judged
from netctl.explain.walk import Notes, Packet, Place, RouteAnswer, Unsure, Verdict
from netctl.explain.walk_hooks import Outcome
from netctl.explain.walk_iptables import IptablesRules, parse_rule
from netctl.explain.walk_overlay import Hop, hop

SERVICE, POD, PEER_POD = (ip_address(text) for text in ("10.96.0.1", "10.244.1.2", "10.244.2.2"))
PACKET = Packet(POD, Place(SERVICE, 80), "tcp", came_in="cni0")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("10.96.0.1:80", Target(SERVICE, "", "80", "")),
        ("10.96.0.1:53/udp", Target(SERVICE, "", "53", "udp")),
        ("[fd00::1]:80", Target(ip_address("fd00::1"), "", "80", "")),
        ("default/web", Target(None, "default/web", "", "")),
        ("default/web:http", Target(None, "default/web", "http", "")),
        ("kube-system/dns:53/udp", Target(None, "kube-system/dns", "53", "udp")),
    ],
)
def test_destinations(text, wanted):
    assert read_target(text) == wanted


@pytest.mark.parametrize(
    "text", ["", "10.96.0.1", "fd00::1:80", "[::1", "10.96.0.1:http", "10.96.0.1:80/tcp/x", "web:80"]
)
def test_what_is_no_destination(text):
    with pytest.raises(OperatorError, match=r"^explain: ") as refused:
        read_target(text)
    assert repr(text) in str(refused.value)


class Sight:
    def is_local(self, address):
        return str(address) == "10.10.0.1"

    def in_ipset(self, name, _):
        return {"known": True, "other": False}.get(name)

    def is_recent(self, name, address):
        return name == "known" and address == POD


def asked(words, packet=PACKET):
    """The only match of a rule, and its answer as the rule means it."""
    (option, *_) = rule = parse_rule(f"-A CHAIN {words} -j ACCEPT").matches
    options = {each.name: each.value for each in rule}
    return answer(Question(option.name, option.value, options, packet, Sight())) != option.negated


@pytest.mark.parametrize(
    ("words", "matches"),
    [
        ("-s 10.244.0.0/16", True),
        ("! -s 10.244.0.0/16", False),
        ("-d 10.96.0.1/32", True),
        ("-i cni0", True),
        ("-i cni+", True),
        ("! -i lo", True),
        ("-o cni0", False),
        ("-p tcp", True),
        ("-p udp", False),
        ("-m multiport --dports 79,80:90", True),
        ("-m tcp --dport 81:", False),
        ("-m mark ! --mark 0x4000/0x4000", True),
        ("-m addrtype --dst-type LOCAL", False),
        ("-m conntrack --ctstate NEW,RELATED", True),
        ("-m conntrack --ctstate DNAT", False),
        ("-m set --match-set known src", True),
        ("-m set --match-set other src", False),
    ],
)
def test_matches_of_iptables(words, matches):
    assert asked(words) is matches


@pytest.mark.parametrize(
    "words", ["-m owner --uid-owner 0", "-m set --match-set unheard src", "-m addrtype --src-type BROADCAST"]
)
def test_matches_that_cannot_be_decided(words):
    with pytest.raises(Unsure):
        asked(words)


def test_a_set_that_a_rule_filled_on_the_way():
    remembered = replace(PACKET, member_of=frozenset({"other"}))
    assert asked("-m set --match-set other src", remembered) is True


def test_clients_that_the_match_recent_knows():
    """As where there are no sets: who is in a list goes there again, and who is in none is put into one."""
    lines = (
        "--update --seconds 60 --reap --name gone {who} -j DNAT --to-destination 10.244.2.9:80",
        "--update --seconds 60 --reap --name known {who} -j DNAT --to-destination 10.244.2.2:80",
        "--set --name gone {who} -j DNAT --to-destination 10.244.2.9:80",
    )
    rules = [f"-A SVC -m recent {line}".format(who="--mask 255.255.255.255 --rsource") for line in lines]
    listed = {"PREROUTING": ["-P PREROUTING ACCEPT", "-A PREROUTING -j SVC"], "SVC": rules}
    walk = IptablesRules({"nat"}, lambda _, chain: listed.get(chain, []), Sight(), "iptables-nft")
    (base,) = walk.base_chains("prerouting")
    (branch,) = base.run(PACKET, Notes("prerouting"))
    assert (str(branch.packet.to), branch.share) == ("10.244.2.2:80", 1)


@pytest.mark.parametrize(
    "rule",
    [
        "-m owner ! --uid-owner 0 -j DROP",
        "-s 10.0.0.0/255.0.255.0 -j DROP",
        "-p tcp -j DNAT --to-destination 10.0.0.1-10.0.0.9:80",
        "-p tcp -j REDIRECT --to-ports 8080",
    ],
)
def test_what_others_write_and_cannot_be_decided_is_a_warning(rule):
    listed = {"PREROUTING": ["-P PREROUTING ACCEPT", f"-A PREROUTING {rule}"]}
    walk = IptablesRules({"nat"}, lambda _, chain: listed.get(chain, []), Sight(), "iptables-nft")
    (base,) = walk.base_chains("prerouting")
    notes = Notes("prerouting")
    (branch,) = base.run(PACKET, notes)
    assert (branch.packet, branch.verdict) == (PACKET, None)
    (warning,) = notes.warnings
    assert rule in warning


@pytest.mark.parametrize(
    "comments", [("", "-m comment --comment default/web"), ("-m comment --comment default/web", "")]
)
def test_the_service_is_named_where_a_chain_translates_or_by_who_leads_there(comments):
    """The second is how netproxy wrote it before; bundles keep such rules."""
    leads, translates = comments
    listed = {
        "PREROUTING": ["-A PREROUTING -j NETPROXY-SERVICES"],
        "NETPROXY-SERVICES": [f"-A NETPROXY-SERVICES -d 10.96.0.1/32 {leads} -j NETPROXY-SVC-A"],
        "NETPROXY-SVC-A": [f"-A NETPROXY-SVC-A -p tcp {translates} -j DNAT --to-destination 10.244.2.2:80"],
    }
    walk = IptablesRules({"nat"}, lambda _, chain: listed.get(chain, []), Sight(), "iptables-nft")
    (base,) = walk.base_chains("prerouting")
    notes = Notes("prerouting")
    base.run(PACKET, notes)
    assert [step.why for step in notes.steps if step.does == "jump NETPROXY-SVC-A"] == ["default/web"]
    assert service_named(notes.steps) == "default/web"


def test_comments_may_hold_what_looks_like_options():
    rule = parse_rule('-A X -p tcp -m comment --comment "a -j DROP \\"b\\"" -j ACCEPT')
    assert (rule.target, rule.comment) == ("ACCEPT", 'a -j DROP "b"')


def test_one_chain_of_what_iptables_printed():
    saved = b"*nat\n:PREROUTING DROP [0:0]\n:A - [0:0]\n:AB - [0:0]\n-A A -j AB\n-A A -j X\n-A AB -j Y\nCOMMIT\n"
    assert chain_in(saved, "A") == ["-N A", "-A A -j AB", "-A A -j X"]
    assert chain_in(saved, "AB") == ["-N AB", "-A AB -j Y"]
    assert chain_in(saved, "PREROUTING") == ["-P PREROUTING DROP"]
    assert chain_in(saved, "B") == []


def test_keys_of_elements():
    assert key_bytes("ipv4_addr . inet_proto . inet_service", "10.96.0.1 . tcp . 80") == bytes(
        [10, 96, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0]
    )
    assert len(key_bytes("ipv6_addr . inet_service . integer", "fd00::1 . 80 . 3")) == 24
    for kind, key in (("ipv4_addr", "10.0.0.1 . 80"), ("ifname", "eth0")):
        with pytest.raises(UnknownTypeError):
            key_bytes(kind, key)


# -- the way behind the rules -----------------------------------------------------------------------------------------

PEERS = [
    {
        "key": "10.244.2.0-24",
        "public_ips": ["10.10.0.2"],
        "subnets": ["10.244.2.0/24"],
        "backend": "vxlan",
        "lost_since": None,
        "large_lost_since": None,
    }
]
GATEWAY = ip_address("10.244.2.0")
OVER = RouteAnswer("unicast", "flannel.1", GATEWAY)


class Paths:
    def __init__(self, link="vxlan", mac="02:00:00:00:00:02", end="10.10.0.2"):
        self._link, self._mac, self._end = link, mac, end and ip_address(end)

    def matched(self, _):
        return RouteAnswer("unicast", prefix="10.244.2.0/24")

    def neighbor(self, *_):
        return self._mac

    def tunnel_end(self, *_):
        return self._end

    def link(self, _):
        return self._link, 1450


def test_a_peers_pod_is_behind_its_tunnel():
    found = hop(PEER_POD, OVER, Paths(), PEERS)
    assert found.text == "flannel.1 to 10.10.0.2 (10.244.2.0-24), mtu 1450"
    assert found.route == "10.244.2.0/24 via 10.244.2.0 dev flannel.1"


def test_over_ipip_the_gateway_is_the_end():
    to_peer = RouteAnswer("unicast", "flannel.ipip", ip_address("10.10.0.2"))
    found = hop(PEER_POD, to_peer, Paths("ipip"), PEERS)
    assert (found.kind, str(found.tunnel_end), found.peer) == ("ipip", "10.10.0.2", "10.244.2.0-24")


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        (Paths(mac=""), "flannel.1 has no neighbor entry for 10.244.2.0"),
        (Paths(end=None), "flannel.1 has no FDB entry for 10.244.2.0"),
    ],
)
def test_what_a_tunnel_lacks_is_told(paths, problem):
    assert hop(PEER_POD, OVER, paths, PEERS).problem == problem


DEFAULT = RouteAnswer("unicast", "eth0", ip_address("10.10.255.2"))
DIRECT = RouteAnswer("unicast", "eth0", ip_address("10.10.0.2"))


@pytest.mark.parametrize(
    ("route", "link", "known", "doubt"),
    [
        (OVER, "vxlan", {}, ""),
        (OVER, "vxlan", {"lost_since": 1.0}, "NN104"),
        (OVER, "vxlan", {"large_lost_since": 1.0}, "NN105"),
        (DIRECT, "", {}, ""),
        (DIRECT, "", {"lost_since": 1.0}, "NN104"),
        (DEFAULT, "", {}, "NN110"),
        (DEFAULT, "", {"backend": "alloc"}, ""),
    ],
)
def test_what_the_agent_knows_of_a_peer_casts_doubt(route, link, known, doubt):
    found = hop(PEER_POD, route, Paths(link), [{**PEERS[0], **known}])
    assert not found.problem
    assert doubt in found.doubt if doubt else found.doubt == ""


@pytest.mark.parametrize("route", [None, RouteAnswer("blackhole"), RouteAnswer("none")])
def test_without_a_way(route):
    assert hop(PEER_POD, route, Paths(), []).problem == "no way there"


# -- a real packet ----------------------------------------------------------------------------------------------------


def explanation(verdict, *ends):
    packets = [PACKET.translated(Place(each, 8080)) for each in ends] or [PACKET]
    outcomes = [Outcome(1 / len(packets), packet, verdict) for packet in packets]
    return Explanation(PACKET, outcomes, Notes(), {outcome: Hop("") for outcome in outcomes})


@pytest.mark.parametrize(
    ("said", "outcome", "landed", "agrees"),
    [
        (explanation(Verdict.ACCEPT, POD, PEER_POD), "answered", Place(PEER_POD, 8080), True),
        (explanation(Verdict.ACCEPT, POD), "answered", Place(PEER_POD, 8080), False),
        (explanation(Verdict.ACCEPT, POD), "silent", None, False),
        (explanation(Verdict.REJECT), "refused", None, True),
        (explanation(Verdict.REJECT), "silent", None, False),
        (explanation(Verdict.DROP), "silent", None, True),
        (explanation(Verdict.DROP), "answered", Place(SERVICE, 80), False),
        (explanation(Verdict.ACCEPT), "silent", Place(SERVICE, 80), True),
    ],
)
def test_how_a_packet_is_judged(said, outcome, landed, agrees):
    found, text = judged(said, Sent(40000, outcome), landed)
    assert found is agrees
    assert text.startswith("as explained" if agrees else "NOT as explained")
