"""Tables of `netctl get` fit 80 columns, whatever somebody called his Service."""

import pytest

from netctl.get.agent_lists import leases
from netctl.get.fitting import WIDTH, fitted
from netctl.get.overlay_lists import fdb_listing, route_listing
from netctl.get.rule_list import listing
from netctl.get.service_lists import endpoints, services
from netctl.output import cut, one_word, render_listing

HOSTILE = ["web", "x" * 253, "a\nb", "\x1b[2J" * 20, "\"quoted\" 'name'", "\u202e\u0007", "tab\there"]
LONG = "2001:0db8:1234:5678:90ab:cdef:1234:5678"


def service_of(name):
    ports = [{"name": name, "protocol": "tcp", "port": 8080 + n, "node_port": 30000 + n} for n in range(9)]
    return {
        "namespace": "default",
        "name": name,
        "cluster_ips": [LONG],
        "external_ips": [],
        "load_balancer_ips": [],
        "ports": ports,
        "balance": "random",
        "affinity_s": 0,
        "internal_policy": "Cluster",
        "external_policy": "Cluster",
        "endpoints": 12345,
        "ready": 12345,
        "terminating": 0,
        "local": 0,
        "state": "quarantined",
        "reason": None,
    }


def endpoint_of(name):
    place = {"address": LONG, "port": 65535, "zone": "z" * 60, "local": False, "ready": True, "terminating": True}
    return {"namespace": "default", "name": name, "port_name": name, "protocol": "tcp", "share": 1.0, **place}


def rule_of(name):
    where = {"place": "iptables-nft nat", "chain": "NETPROXY-SVC-ABCDEFGHIJKLMNOP", "purpose": None}
    counts = {"packets": 1, "bytes": 1}
    return {**where, **counts, "rule": f"-m comment {name}", "owner": f"Service default/{name}", "other_owners": 3}


def route_of(name):
    fixed = {"type": "unicast", "onlink": True, "metric": 0, "protocol": 171, "agent": "netagent", "state": "foreign"}
    return {**fixed, "prefix": f"{LONG}/128", "gateway": LONG, "device": "nodenet-wg12345", "peer": name}


def entry_of(name):
    fixed = {"kind": "neighbor", "agent": "netagent", "state": "changed", "device": "flannel.1"}
    return {**fixed, "address": LONG, "leads_to": LONG, "peer": name}


def lease_of(name):
    fixed = {"backend": "wireguard", "expires": True, "own": False, "skipped": name, "revision": 1}
    return {**fixed, "key": name, "public_ips": [LONG], "subnets": [LONG]}


LISTS = [
    (lambda items: services(items, is_wide=False), service_of),
    (endpoints, endpoint_of),
    (listing, rule_of),
    (route_listing, route_of),
    (fdb_listing, entry_of),
    (leases, lease_of),
]


@pytest.mark.parametrize(("made", "item"), LISTS)
def test_a_table_fits_whatever_is_in_it(made, item):
    found = fitted(made([item(name) for name in HOSTILE]), "table")
    lines = render_listing(found, "table").split("\n")
    assert len(lines) == 1 + len(HOSTILE)
    assert max(map(len, lines)) <= WIDTH
    assert all(line.isprintable() for line in lines)
    assert "..." in lines[2]


@pytest.mark.parametrize(("made", "item"), LISTS)
def test_wide_cuts_nothing(made, item):
    found = fitted(made([item("x" * 253)]), "wide")
    assert "x" * 253 in render_listing(found, "wide")


@pytest.mark.parametrize(("made", "item"), LISTS)
def test_each_name_is_one_word(made, item):
    lines = render_listing(made([item(name) for name in HOSTILE]), "name").split("\n")
    assert [len(line.split()) for line in lines] == [1] * len(HOSTILE)
    assert all(line.isprintable() for line in lines)


def test_short_texts_stay_as_they_are():
    found = fitted(leases([lease_of("10.244.1.0-24") | {"public_ips": ["10.0.0.1"]}]), "table")
    assert render_listing(found, "table").split("\n")[1].split()[:2] == ["10.244.1.0-24", "10.0.0.1"]


def test_what_is_cut_was_escaped_before():
    assert cut("\x1b[2J", 7) == "\\x1b[2J"
    assert cut("\x1b[2Jab", 8) == "\\x1b[..."
    assert one_word(" a \n b\x1b") == "a_b\\x1b"
