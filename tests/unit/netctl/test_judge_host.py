"""Each fault of a host, put into the facts of a healthy one, is the one finding that comes of it."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from captured_node import FIREWALL, HEALTHY, IPTABLES, LINKS, NEIGHBOR_TABLES, NEIGHBORS, SYSCTLS

from controlloop.family import Family
from netctl.findings.facts import with_native_rules
from netctl.findings.host_facts import (
    Frontend,
    HostFacts,
    Socket,
    foreign_tables,
    frontends_in_rules,
    native_part,
    read_settings,
    read_table,
)
from netctl.findings.judge_host import judge_host
from netctl.findings.judge_rules import judge_rules
from netctl.findings.neighbor_table import NeighborTable, read_neighbor_tables

GOLDEN = Path(__file__).parents[2] / "golden" / "five_services.iptables"


def sysctl(**values):
    """Dots as in `sysctl`, for names that Python allows: two underscores stand for a slash."""
    return {"sysctls": {**SYSCTLS, **{name.replace("__", "/"): value for name, value in values.items()}}}


def links(*more, **changed):
    """The healthy ones with another MTU by name, and further ones."""
    made = [{**link, "mtu": changed.get(link["ifname"].partition(".")[0], link["mtu"])} for link in json.loads(LINKS)]
    return {"links": [*made, *more]}


def vxlan_link(name, vni, port):
    return {"ifname": name, "mtu": 1450, "linkinfo": {"info_kind": "vxlan", "info_data": {"id": vni, "port": port}}}


def iptables(*rules, program="iptables-nft", policy=""):
    lines = IPTABLES.replace(*(policy, policy.replace("ACCEPT", "DROP")) if policy else ("", "")).splitlines()
    before = lines if program == "iptables-nft" else []
    return {"iptables": {**HEALTHY.iptables, program: [*before, *rules]}}


def table(listing, *without):
    read = read_table("inet", "filter", json.loads(listing))
    return {"tables": [replace(read, chains=[each for each in read.chains if each["name"] not in without])]}


def neighbors(entries, unlimited=0, cleared_s=2.0):
    return {"neighbor_tables": [NeighborTable(Family.V6, entries, unlimited, 1024, 7, cleared_s)]}


def named(name):
    return {"tables": [replace(read_table("inet", name, {}))]}


FAULTS = {
    "NN211": {"sockets": [*HEALTHY.sockets, Socket("tcp", "0.0.0.0", 30080, "nginx (pid 7)")]},
    "NN212": iptables(":KUBE-SERVICES - [0:0]", "-A KUBE-SVC-X -j KUBE-SEP-Y"),
    "NN301": sysctl(ipv4__ip_forward=0),
    "NN302": sysctl(ipv4__conf__eth0__rp_filter=1),
    "NN303": {"sysctls": {**SYSCTLS, "bridge/bridge-nf-call-iptables": 0}},
    "NN304": sysctl(ipv4__conf__all__route_localnet=1),
    "NN305": {"refused": {"VXLAN": "Error: Unknown device type."}},
    "NN306": {"missing": ["nft"]},
    "NN308": {"networkd": {"ManageForeignRoutingPolicyRules": "no"}},
    "NN310": named("firewalld"),
    "NN311": iptables(":ufw-before-forward - [0:0]"),
    "NN312": table(FIREWALL, "input", "forward"),
    "NN313": table(FIREWALL, "input", "pre"),
    "NN314": table(FIREWALL, "forward", "pre"),
    "NN315": iptables("-A FORWARD -j ACCEPT", program="iptables-legacy"),
    "NN316": {"sockets": [Socket("udp", "0.0.0.0", 8472, "other (pid 9)")]},
    "NN317": links(vxlan_link("vxlan7", 1, 8472)),
    "NN318": sysctl(netfilter__nf_conntrack_count=240_000),
    "NN320": {"wrong_checksums": 40},
    "NN321": links(eth0=1400),
    "NN322": neighbors(entries=1000),
}


def judged(**changed):
    return list(judge_host(replace(HEALTHY, **changed)))


def test_a_healthy_node_has_no_findings():
    assert judged() == []


def test_nor_has_one_on_which_nothing_runs_yet():
    bare = replace(HEALTHY, links=HEALTHY.links[:2], iptables={"iptables-nft": []}, sockets=[], frontends=[])
    assert list(judge_host(bare)) == []


@pytest.mark.parametrize("code", FAULTS)
def test_each_fault_is_its_finding_and_no_other(code):
    assert [each.code for each in judged(**FAULTS[code])] == [code]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("NN211", "nginx (pid 7) listens at 0.0.0.0, and node port 30080/tcp takes its connections"),
        ("NN302", "net.ipv4.conf.eth0.rp_filter = 1"),
        ("NN304", "net.ipv4.conf.all.route_localnet = 1, and no rule drops 127.0.0.0/8"),
        ("NN308", "ManageForeignRoutes=yes, its default"),
        ("NN312", "a rule in chain pre translates connections to 10.96.0.10:80/tcp"),
        ("NN315", "1 rules in iptables-legacy and 3 rules in iptables-nft"),
        ("NN318", "240000 of 262144 are tracked"),
        ("NN322", "1000 of 1024 entries are taken; 7 found no room since the start"),
        ("NN321", "MTU 1450 and 50 bytes of wrapping do not fit into eth0's MTU 1400"),
    ],
)
def test_the_evidence_has_the_value(code, words):
    [finding] = judged(**FAULTS[code])
    assert finding.evidence == words


HARMLESS = {
    "open localhost where nobody could read whether it is guarded": {
        "iptables": {},
        **sysctl(ipv4__conf__all__route_localnet=1),
    },
    "the same where iptables of nf_tables cannot read its rules": {
        "iptables": {"ip6tables-nft": []},
        **sysctl(ipv4__conf__all__route_localnet=1),
    },
    "loose reverse path filter, which is larger than strict": sysctl(ipv4__conf__all__rp_filter=2) | {},
    "strict one where no pod comes in": sysctl(ipv4__conf__lo__rp_filter=1),
    "guarded localnet": iptables("-A PREROUTING -d 127.0.0.0/8 -j NETPROXY-LOOPBACK-ONLY")
    | sysctl(ipv4__conf__all__route_localnet=1),
    "another overlay at another port": links(vxlan_link("vxlan7", 1, 4789)),
    "another VNI at our port": links(vxlan_link("vxlan7", 2, 8472)),
    "flanneld's device, which is taken over": {"links": [*HEALTHY.links[:2], vxlan_link("flannel.1", 1, 8472)]},
    "kubelet's own chains": iptables(":KUBE-KUBELET-CANARY - [0:0]", ":KUBE-FIREWALL - [0:0]"),
    "networkd that keeps what others made": {
        "networkd": {"ManageForeignRoutes": "no", "ManageForeignRoutingPolicyRules": "false"}
    },
    "a few broken datagrams": {"wrong_checksums": 3, "datagrams": 100},
    "a table of neighbors that is full of peers": neighbors(entries=5100, unlimited=5000),
    "one that is full of what other namespaces set for good": neighbors(entries=5100, cleared_s=3600.0),
    "our own health check port": {"sockets": [Socket("tcp", "0.0.0.0", 30080, "netproxy (pid 5)")]},
    "forwarding closed, and our jump in it": iptables(policy=":FORWARD ACCEPT"),
    "port forwarding of a container": iptables("-A PREROUTING -p tcp -m tcp --dport 8080 -j DNAT --to 172.17.0.2:80"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_harms_nobody_is_no_finding(name):
    assert judged(**HARMLESS[name]) == []


ACCEPT = {"accept": None}


def match(field, protocol, right):
    return {"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}}


def rule(chain, *expr):
    return {"chain": chain, "expr": list(expr)}


@pytest.mark.parametrize(
    ("rules", "is_open"),
    [
        ([rule("input", match("dport", "udp", 8472), ACCEPT)], True),
        ([rule("input", match("saddr", "ip", "10.10.0.0"), ACCEPT)], True),
        ([rule("input", {"jump": {"target": "peers"}}), rule("peers", match("dport", "udp", 8472), ACCEPT)], True),
        ([rule("input", match("dport", "tcp", 22), ACCEPT)], False),
        ([rule("input", match("dport", "udp", 8472), {"drop": None})], False),
        ([rule("peers", match("dport", "udp", 8472), ACCEPT)], False),
        ([rule("forward", ACCEPT)], False),
    ],
)
def test_a_closed_chain_is_fine_when_it_leads_to_a_rule_for_the_overlay(rules, is_open):
    closed = [replace(each, rules=rules) for each in table(FIREWALL, "forward", "pre")["tables"]]
    assert [each.code for each in judged(tables=closed)] == ["NN314"] * (not is_open)


@pytest.mark.parametrize(
    ("rules", "is_open"),
    [
        (["-A INPUT -p udp -m udp --dport 8472 -j ACCEPT"], True),
        (["-A INPUT -s 10.10.0.0/16 -j ACCEPT"], True),
        (["-A INPUT -j PEERS", "-A PEERS -p udp -m udp --dport 8472 -j ACCEPT"], True),
        (["-A INPUT -i lo -j ACCEPT", "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT"], False),
        (["-A PEERS -p udp -m udp --dport 8472 -j ACCEPT"], False),
        ([], False),
    ],
)
def test_so_it_is_in_iptables_where_our_rules_for_pods_do_not_count(rules, is_open):
    assert [each.code for each in judged(**iptables(*rules, policy=":INPUT ACCEPT"))] == ["NN314"] * (not is_open)


@pytest.mark.parametrize(
    ("rule", "caught"),
    [
        ("-A PREROUTING -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.1", True),
        ("-A PREROUTING -p tcp -m tcp --dport 30080 -j REDIRECT --to-ports 1", True),
        ("-A OUTPUT -d 10.96.0.0/12 -j DNAT --to-destination 10.0.0.1", True),
        ("-A PREROUTING -d 10.96.0.10/32 -p udp -m udp --dport 80 -j DNAT --to-destination 10.0.0.1", False),
        ("-A PREROUTING -d 192.0.2.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.1", False),
        ("-A DOCKER -d 10.96.0.10/32 -j DNAT --to-destination 10.0.0.1", False),
    ],
)
def test_a_rule_that_translates_counts_when_it_can_meet_a_service(rule, caught):
    listening = {"frontends": [Frontend("10.96.0.10", "tcp", 80), Frontend("", "tcp", 30080)]}
    if rule.startswith("-A PREROUTING -d 192"):
        listening["frontends"] = listening["frontends"][:1]
    assert [each.code for each in judged(**iptables(rule), **listening)] == ["NN312"] * caught


def test_frontends_are_read_from_the_rules_of_iptables_mode():
    found = {str(each): each.is_cluster_ip for each in frontends_in_rules(GOLDEN.read_text().splitlines())}
    assert found == {
        "node port 30080/tcp (default/web:http)": False,
        "node port 30443/tcp (default/api)": False,
        "10.96.0.1:80/tcp (default/web:http)": True,
        "10.96.0.2:443/tcp (default/api)": True,
        "10.96.0.3:80/tcp (default/cart:http)": True,
        "10.96.0.10:53/udp (kube-system/dns:dns)": True,
        "203.0.113.1:443/tcp (default/api)": False,
    }


def test_so_they_are_from_rules_that_name_the_service_where_a_packet_is_told_its_chain():
    """As bundles of older nodes have them."""
    older = '-A NETPROXY-NODE-PORTS -p tcp -m tcp --dport 30080 -m comment --comment "a/web:http" -j NETPROXY-EXT-A'
    below = ["-A NETPROXY-EXT-A -j NETPROXY-SVC-B", "-A NETPROXY-SVC-B -p tcp -j DNAT --to-destination 10.244.1.2:80"]
    assert [str(each) for each in frontends_in_rules([older, *below])] == ["node port 30080/tcp (a/web:http)"]


def test_tables_of_ours_and_of_iptables_are_not_foreign():
    def chain(family, name, **base):
        return {"chain": {"family": family, "table": name, "name": "c", **base}}

    hooked = {"hook": "forward", "prio": 0}
    chains = [chain("ip", "netproxy", **hooked), chain("ip", "netagent2", **hooked), chain("ip6", "nat", **hooked)]
    chains += [chain("ip", "netproxy-counters", **hooked)]
    chains += [chain("inet", "filter", **hooked), chain("ip", "idle"), chain("ip", "other", **hooked)]
    assert foreign_tables({"nftables": chains}) == [("inet", "filter"), ("ip", "other")]


def test_of_a_table_of_iptables_only_what_it_does_not_show_is_foreign():
    said = "# Table `filter' contains incompatible base-chains, use 'nft' tool to list them."
    spoiled = "# Table `nat' is incompatible, use 'nft' tool."
    assert list(with_native_rules({"iptables-nft": [said], "ip6tables-nft": [spoiled, "*filter"]})) == [
        ("ip", "filter"),
        ("ip6", "nat"),
    ]

    def chain(name, **base):
        return {"chain": {"family": "ip", "table": "filter", "name": name, **base}}

    def rule(name, *expr):
        return {"rule": {"family": "ip", "table": "filter", "chain": name, "expr": list(expr)}}

    hooked = {"hook": "forward", "prio": 0, "policy": "drop"}
    entries = [chain("FORWARD", **hooked), chain("forward", **hooked), chain("mine"), chain("theirs")]
    entries += [rule("FORWARD", {"jump": {"target": "theirs"}}), rule("forward", {"jump": {"target": "mine"}})]
    entries += [rule("theirs", {"accept": None}), rule("mine", {"counter": None})]
    table = native_part(read_table("ip", "filter", {"nftables": entries}))
    assert [each["name"] for each in table.chains] == ["forward"]
    assert [each["chain"] for each in table.rules] == ["forward", "mine"]
    assert [each.code for each in judge_rules(HostFacts(tables=[table]))] == ["NN313"]


def test_tables_of_neighbors_are_read_without_those_that_have_no_limit():
    ten_o_clock = datetime(2026, 11, 23, 10, tzinfo=UTC).timestamp()
    here = {Family.V4: json.loads(NEIGHBORS), Family.V6: []}
    assert list(read_neighbor_tables(json.loads(NEIGHBOR_TABLES), here, ten_o_clock)) == [
        NeighborTable(Family.V4, entries=1012, unlimited=2, limit=1024, overflows=7, cleared_s=364.0),
        NeighborTable(Family.V6, entries=36, unlimited=0, limit=1024, overflows=0, cleared_s=0.0),
    ]


def test_settings_of_systemd_are_read_by_section_and_the_last_one_counts():
    texts = ["[Match]\nManageForeignRoutes=x\n[Network]\n#ManageForeignRoutes=no\nA = 1\n", "[Network]\nA=2\n"]
    assert read_settings(texts, "Network") == {"A": "2"}
