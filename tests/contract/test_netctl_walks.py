"""Walks through rules as a kernel lists them: the five services of tests/golden, in both modes.

The rules are the kernel's; what else a walk asks of a node is answered here.
"""

import re
import subprocess
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path

import msgspec
import pytest
from namespace import fresh_namespace

from controlloop.family import Family
from netctl.explain.explanation import Explanation
from netctl.explain.rules import chain_in
from netctl.explain.walk import Notes, Packet, Place, RouteAnswer
from netctl.explain.walk_hooks import Journey
from netctl.explain.walk_iptables import IptablesRules
from netctl.explain.walk_nftables import nft_tables
from netctl.explain.walk_overlay import Hop
from proxy.iptables.address_sets import AddressSets

GOLDEN = Path(__file__).parents[1] / "golden"
OF_NFTABLES, OF_IPTABLES = GOLDEN / "five_services.nft", GOLDEN / "five_services.iptables"

CONTAINER = re.compile(r"\t(?:map|set) (\S+) \{[^}]*?elements = \{([^}]*)\}")
ROUTES = {"10.244.1.0/24": "cni0", "10.244.0.0/16": "flannel.1", "0.0.0.0/0": "eth0"}
LOCAL = ("192.0.2.1", "127.0.0.1")


def golden_elements():
    found = {}
    for name, text in CONTAINER.findall(OF_NFTABLES.read_text()):
        for item in filter(None, (part.strip() for part in text.split(","))):
            key, _, value = item.partition(" : ")
            found[name, key] = value
    return found


class Sight:
    """A node 192.0.2.1 whose pods are in 10.244.1.0/24."""

    def __init__(self, members=()):
        self._elements = golden_elements()
        self._members = members

    def route(self, to, *_):
        if str(to) in LOCAL:
            return RouteAnswer("local", "lo", None, to)
        device = next(device for network, device in ROUTES.items() if to in ip_network(network))
        return RouteAnswer("unicast", device, None, ip_address("192.0.2.1"))

    def is_local(self, address):
        return str(address) in LOCAL

    def element(self, _table, container, _kind, key):
        return self._elements.get((container, key))

    def ranges(self, table, name):
        assert (table, name) == ("ip fw", "blocked")
        return [{"range": ["10.1.0.1", "10.1.0.9"]}, "10.2.0.1", {"prefix": {"addr": "10.244.1.0", "len": 28}}]

    def in_ipset(self, name, address):
        return (name, str(address)) in self._members

    def is_recent(self, *_):
        return None


@cache
def listed_by_nft():
    with fresh_namespace():
        printed("nft", "--file", str(OF_NFTABLES))
        return printed("nft", "--json", "--terse", "list", "ruleset", "ip")


@cache
def saved_by_iptables():
    golden = OF_IPTABLES.read_text()
    with fresh_namespace():
        AddressSets(Family.V4, "NETPROXY-4-").make(set(re.findall(r"-set (NETPROXY-4-\S+)", golden)))
        printed("iptables-legacy-restore", stdin=golden)
        return printed("iptables-legacy-save")


def printed(*argv, stdin=""):
    return subprocess.run(argv, input=stdin.encode(), check=True, capture_output=True).stdout


def nftables(sight):
    listing = msgspec.json.decode(listed_by_nft())
    return nft_tables(listing["nftables"], frozenset({"ip"}), sight)


def iptables(sight):
    tables = {part.partition(b"\n")[0].decode(): b"\n" + part for part in saved_by_iptables().split(b"*")[1:]}
    return [IptablesRules(tables, lambda table, chain: chain_in(tables[table], chain), sight, "iptables-legacy")]


MODES = {"nftables": nftables, "iptables": iptables}


@pytest.fixture(params=MODES.values(), ids=MODES)
def mode(request):
    return request.param


def explained(mode, source, to, *, protocol="tcp", came_in="eth0", sight=None):
    address, port = to.rsplit(":", 1)
    packet = Packet(ip_address(source), Place(ip_address(address), int(port)), protocol, came_in)
    sight, notes = sight or Sight(), Notes()
    outcomes = Journey(mode(sight), sight, notes).travel(packet)
    return Explanation(packet, outcomes, notes, {outcome: Hop("") for outcome in outcomes})


def ends(explanation):
    return {str(each.place): round(each.probability, 6) for each in explanation.backends}


POD, NODE, OUTSIDE, ALLOWED = "10.244.1.9", "192.0.2.1", "203.0.113.77", "10.10.0.9"
WEB = dict.fromkeys(("10.244.1.2:8080", "10.244.2.2:8080", "10.244.2.3:8080"), 0.333333)
API = {"10.244.1.3:8443": 0.75, "10.244.2.4:8443": 0.25}


@pytest.mark.parametrize(
    ("source", "came_in", "to", "wanted", "masqueraded"),
    [
        (POD, "cni0", "10.96.0.1:80", WEB, False),
        (OUTSIDE, "eth0", "10.96.0.1:80", WEB, True),
        (NODE, "", "10.96.0.1:80", WEB, True),
        (OUTSIDE, "eth0", "192.0.2.1:30080", WEB, True),
        (POD, "cni0", "10.96.0.2:443", API, False),
        (OUTSIDE, "eth0", "192.0.2.1:30443", {"10.244.1.3:8443": 1}, False),
        (POD, "cni0", "192.0.2.1:30443", API, False),
        (NODE, "", "192.0.2.1:30443", API, True),
        (ALLOWED, "eth0", "203.0.113.1:443", {"10.244.1.3:8443": 1}, False),
    ],
)
def test_where_it_lands(mode, source, came_in, to, wanted, masqueraded):  # noqa: PLR0917 - a table
    explanation = explained(mode, source, to, came_in=came_in)
    assert explanation.verdict == "dnat"
    assert ends(explanation) == wanted
    assert explanation.masquerade is masqueraded
    assert explanation.arrives
    assert not explanation.warnings


@pytest.mark.parametrize(
    ("source", "came_in", "to", "verdict", "code"),
    [
        (POD, "cni0", "10.96.0.4:80", "reject", "no-endpoints"),
        (NODE, "", "10.96.0.4:80", "reject", "no-endpoints"),
        (OUTSIDE, "eth0", "192.0.2.1:30081", "reject", "no-endpoints"),
        (OUTSIDE, "eth0", "203.0.113.1:443", "drop", "source-ranges"),
        (POD, "cni0", "203.0.113.1:443", "drop", "source-ranges"),
    ],
)
def test_why_it_does_not_arrive(mode, source, came_in, to, verdict, code):  # noqa: PLR0917 - a table
    explanation = explained(mode, source, to, came_in=came_in)
    assert (explanation.verdict, explanation.reason.code) == (verdict, code)
    assert not explanation.arrives


def test_a_pod_that_reaches_itself_sees_the_node(mode):
    explanation = explained(mode, "10.244.1.2", "10.96.0.1:80", came_in="cni0")
    seen = {str(each.place): each.masquerade for each in explanation.backends}
    assert seen == {"10.244.1.2:8080": True, "10.244.2.2:8080": False, "10.244.2.3:8080": False}
    assert "calls itself" in explanation.masquerade_why


def test_what_only_nftables_knows():
    wrong_port = explained(nftables, POD, "10.96.0.1:81", came_in="cni0")
    assert (wrong_port.verdict, wrong_port.reason.code) == ("reject", "undefined-port")
    nobody = explained(nftables, POD, "10.96.77.77:80", came_in="cni0")
    assert (nobody.verdict, nobody.reason.code) == ("drop", "unallocated-address")
    assert explained(iptables, POD, "10.96.0.1:81", came_in="cni0").verdict == "pass"


def test_what_is_no_service_passes(mode):
    explanation = explained(mode, POD, "8.8.8.8:53", protocol="udp", came_in="cni0")
    assert (explanation.verdict, explanation.service, ends(explanation)) == ("pass", None, {})
    assert explanation.arrives


def test_the_rules_name_the_service():
    assert explained(iptables, POD, "10.96.0.1:80", came_in="cni0").service == "default/web:http"
    assert explained(iptables, POD, "10.96.0.4:80", came_in="cni0").service == "default/idle"
    assert explained(nftables, POD, "10.96.0.1:80", came_in="cni0").service == "default/web"


def test_a_client_that_is_remembered_has_one_endpoint():
    sight = Sight()
    clients = next(name for name in nftables(sight)[0]._types if name.startswith("clients-"))
    sight._elements[clients, POD] = ""
    explanation = explained(nftables, POD, "10.96.0.3:80", came_in="cni0", sight=sight)
    assert list(ends(explanation).values()) == [1]
    other = explained(nftables, "10.244.1.8", "10.96.0.3:80", came_in="cni0", sight=sight)
    assert ends(other) == {"10.244.2.5:8080": 0.5, "10.244.2.6:8080": 0.5}


def test_a_slot_that_is_missing_goes_on_untranslated():
    sight = Sight()
    del sight._elements["tcp-endpoints", "10.96.0.1 . 80 . 1"]
    explanation = explained(nftables, POD, "10.96.0.1:80", came_in="cni0", sight=sight)
    assert sum(outcome.share for outcome in explanation.outcomes) == pytest.approx(1)
    assert ends(explanation) == {"10.244.1.2:8080": 0.333333, "10.244.2.3:8080": 0.333333}
    assert not explanation.arrives


FOREIGN = """
{"nftables": [
  {"table": {"family": "ip", "name": "fw"}},
  {"chain": {"family": "ip", "table": "fw", "name": "early", "type": "filter", "hook": "prerouting",
             "prio": -150, "policy": "accept"}},
  {"rule": {"family": "ip", "table": "fw", "chain": "early", "handle": 7, "expr": [%s]}}
]}"""


def beside(statements):
    def both(sight):
        foreign = msgspec.json.decode(FOREIGN % statements)["nftables"]
        return [*nftables(sight), *nft_tables(foreign, frozenset({"ip"}), sight)]

    return both


PORT_80 = '{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": %s}}'


def test_a_foreign_rule_that_drops_first_is_named():
    dropping = beside(f'{PORT_80 % 80}, {{"drop": null}}')
    explanation = explained(dropping, POD, "10.96.0.1:80", came_in="cni0")
    assert (explanation.verdict, explanation.reason.code) == ("drop", "foreign-rule")
    assert "ip fw early" in explanation.reason.text
    elsewhere = explained(dropping, POD, "10.96.0.2:443", came_in="cni0")
    assert elsewhere.verdict == "dnat"
    assert not elsewhere.warnings


@pytest.mark.parametrize(("source", "verdict"), [(POD, "drop"), ("10.244.1.77", "dnat")])
def test_a_set_of_ranges_is_read(source, verdict):
    member = '{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "@blocked"}}'
    explanation = explained(beside(f'{member}, {{"drop": null}}'), source, "10.96.0.1:80", came_in="cni0")
    assert explanation.verdict == verdict


def translating(priority, statement):
    """A foreign chain of type nat, listed behind ours."""
    text = FOREIGN.replace('"filter"', '"nat"').replace("-150", str(priority)) % f"{PORT_80 % 80}, {statement}"

    def both(sight):
        return [*nftables(sight), *nft_tables(msgspec.json.decode(text)["nftables"], frozenset({"ip"}), sight)]

    return both


def test_a_foreign_rule_that_translates_first_is_a_warning():
    caught = translating(-200, '{"dnat": {"addr": "198.51.100.7", "port": 8080}}')
    explanation = explained(caught, POD, "10.96.0.1:80", came_in="cni0")
    assert ends(explanation) == {"198.51.100.7:8080": 1}
    assert explanation.warnings == ["prerouting: ip fw early, which is not ours: dnat to 198.51.100.7:8080"]


def test_a_foreign_rule_that_would_translate_later_does_not():
    later = translating(-50, '{"dnat": {"addr": "198.51.100.7", "port": 8080}}')
    explanation = explained(later, POD, "10.96.0.1:80", came_in="cni0")
    assert "198.51.100.7:8080" not in ends(explanation)
    assert not explanation.warnings


def test_a_foreign_rule_that_redirects_first_is_a_warning():
    explanation = explained(translating(-200, '{"redirect": {"port": 8080}}'), POD, "10.96.0.1:80", came_in="cni0")
    (warning,) = explanation.warnings
    assert "ip fw early may catch it" in warning


def test_a_foreign_rule_that_cannot_be_decided_is_a_warning():
    unknown = '{"match": {"op": "==", "left": {"meta": {"key": "skuid"}}, "right": 1000}}, {"drop": null}'
    explanation = explained(beside(unknown), POD, "10.96.0.1:80", came_in="cni0")
    assert explanation.verdict == "dnat"
    (warning,) = explanation.warnings
    assert "ip fw early" in warning
    assert "meta skuid" in warning


def test_text_fits_the_terminal(mode):
    text = explained(mode, "10.244.1.2", "10.96.0.1:80", came_in="cni0").render()
    assert max(map(len, text.splitlines())) <= 80
    assert "33.3%   10.244.1.2:8080, masqueraded" in text
