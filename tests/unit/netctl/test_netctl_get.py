"""The lists of netctl: what a person, a script and a shell's loop get."""

import json
import re
import time

import pytest
import yaml
from test_netctl_status import NETAGENT, NETPROXY, answering, status_of

from controlloop.flags import run_command
from netctl.get.agent_lists import leases, peers
from netctl.main import netctl
from netctl.output import render_listing

NOW = 1_000_000.0


def peer(key="10.244.9.0-24", **changes):
    return {
        "key": key,
        "subnets": ["10.244.9.0/24"],
        "public_ips": ["10.10.0.2"],
        "backend": "vxlan",
        "mac": "82:4b:b6:2f:54:4e",
        "device": "flannel.1",
        "programmed": True,
        "skipped": None,
        "reach": "reachable",
        "rtt_ms": 0.254,
        "last_answer": NOW - 4,
        "lost_since": None,
        "large_lost_since": None,
    } | changes


def lease(key="10.244.9.0-24", **changes):
    return {
        "key": key,
        "subnets": ["10.244.9.0/24"],
        "public_ips": ["10.10.0.2"],
        "backend": "vxlan",
        "own": False,
        "expires": True,
        "revision": 12,
        "skipped": None,
    } | changes


PEERS = [
    peer(),
    peer("10.244.250.0-24", reach="lost", rtt_ms=12.5, lost_since=NOW - 192),
    peer("10.244.3.0-24", device=None, programmed=False, reach=None, rtt_ms=None, skipped="BackendType"),
    peer("10.244.4.0-24", large_lost_since=NOW - 3700),
]


def test_peers_as_a_table():
    assert render_listing(peers(PEERS, NOW), "table").splitlines() == [
        "PEER             PUBLIC IP  IN KERNEL  PATH       RTT MS  SINCE",
        "10.244.9.0-24    10.10.0.2  yes        reachable    0.25      -",
        "10.244.250.0-24  10.10.0.2  yes        lost        12.50  3m12s",
        "10.244.3.0-24    10.10.0.2  no         -               -      -",
        "10.244.4.0-24    10.10.0.2  yes        mtu          0.25  1h01m",
    ]


def test_leases_as_a_table():
    items = [lease(own=True), lease("10.5.0.0-24", expires=False), lease("x", public_ips=[], backend=None, skipped="y")]
    assert render_listing(leases(items), "table").splitlines() == [
        "LEASE          PUBLIC IP  BACKEND  EXPIRES  STATE",
        "10.244.9.0-24  10.10.0.2  vxlan    yes      own",
        "10.5.0.0-24    10.10.0.2  vxlan    no       peer",
        "x              -          -        yes      skipped",
    ]


def test_the_widest_ipv4_row_fits_80_columns():
    facts = {"public_ips": ["100.100.100.100"], "rtt_ms": 9999.99, "lost_since": NOW - 86400 * 99}
    widest = peers([peer("100.100.100.0-24", **facts)], NOW)
    assert max(map(len, render_listing(widest, "table").splitlines())) <= 80


def test_wide_says_more():
    text = render_listing(peers(PEERS, NOW), "wide")
    assert "82:4b:b6:2f:54:4e" in text
    assert "BackendType" in text
    assert "REVISION" in render_listing(leases([lease()]), "wide")


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_documents_name_their_kind_and_hold_everything(form, read):
    document = read(render_listing(peers(PEERS, NOW), form))
    assert document == {"apiVersion": "nodenet.io/v1alpha1", "kind": "PeerList", "items": PEERS}
    assert read(render_listing(leases([lease()]), form))["kind"] == "LeaseList"


def test_names_are_one_in_a_line():
    assert render_listing(peers(PEERS[:2], NOW), "name").splitlines() == ["peer/10.244.9.0-24", "peer/10.244.250.0-24"]
    assert render_listing(leases([]), "name") == ""


@pytest.mark.parametrize("form", ["table", "wide", "json", "yaml", "name"])
def test_no_form_lets_foreign_text_move_the_cursor(form):
    text = render_listing(leases([lease("a\x1b[2Jb", backend="\x9b1m", skipped="\r\n")]), form)
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert "\r" not in text


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([peer()], 0),
        ([peer(reach="silent", rtt_ms=None)], 0),
        ([peer(), PEERS[1]], 1),
        ([PEERS[2]], 1),
        ([PEERS[3]], 1),
        ([], 0),
    ],
)
def test_the_exit_code_says_whether_a_peer_is_wrong(tmp_path, monkeypatch, capsys, items, code):
    monkeypatch.setattr("netctl.node.runtime_directory", lambda: tmp_path)
    with answering(tmp_path / "netagent.sock", {"items": items}):
        assert run_command(netctl, ["peers"]) == code
    assert capsys.readouterr().out.startswith("PEER")


def test_a_skipped_lease_is_a_finding(tmp_path, monkeypatch):
    monkeypatch.setattr("netctl.node.runtime_directory", lambda: tmp_path)
    with answering(tmp_path / "netagent.sock", {"items": [lease(skipped="no")]}):
        assert run_command(netctl, ["leases", "-o", "name"]) == 1


def test_another_agent_of_the_node_is_asked_by_its_number(tmp_path, monkeypatch):
    monkeypatch.setattr("netctl.node.runtime_directory", lambda: tmp_path)
    with answering(tmp_path / "netagent2.sock", {"items": [peer()]}):
        assert run_command(netctl, ["peers", "--instance", "2", "-o", "name"]) == 0


@pytest.mark.parametrize("command", ["peers", "leases"])
def test_an_agent_that_does_not_answer_is_one_line_and_3(tmp_path, monkeypatch, capsys, command):
    monkeypatch.setattr("netctl.node.runtime_directory", lambda: tmp_path)
    assert run_command(netctl, [command]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"netctl: netagent does not answer ({tmp_path}/netagent.sock: No such file or directory)\n"


def test_status_as_a_document_holds_what_the_daemons_say(tmp_path):
    found = status_of(tmp_path, netagent=NETAGENT)
    document = json.loads(found.shown("json"))
    assert (document["apiVersion"], document["kind"]) == ("nodenet.io/v1alpha1", "NodeStatus")
    assert (document["ok"], document["netagent"], document["netproxy"]) == (False, NETAGENT, None)
    assert yaml.safe_load(found.shown("yaml")) == document
    assert found.shown("name") == "node/node-a"


def test_status_shows_findings_with_their_age_and_their_remedy(tmp_path):
    finding = {"name": "10.244.9.0-24", "reason": "MTU", "since": time.time() - 65, "remedy": "less", "code": "NN105"}
    fight = {"name": "route", "reason": "undone", "code": "NN108"}
    found = status_of(tmp_path, netagent={**NETAGENT, "findings": [finding, fight]}, netproxy=NETPROXY)
    assert found.exit_code == 1
    told = re.sub(r"for 1m\d\ds", "for 1m05s", found.render())  # by a machine that is in no hurry
    assert told.splitlines()[3:] == [
        "  ! NN105 large packets do not arrive: 10.244.9.0-24, for 1m05s",
        "      MTU; less",
        "      next: netctl peers -o wide",
        "  ! NN108 somebody undoes the overlay: route",
        "      undone",
        "      next: netctl diff",
        "`netctl help NN105` says what it means and what to do.",
    ]


def test_status_tells_more_when_asked_for_wide(tmp_path):
    told = {
        "version": "1",
        "programmed": {"route": 3, "fdb": 2},
        "repairs": {},
        "last_reconcile": {"at": time.time() - 7, "took_ms": 4},
    }
    text = status_of(tmp_path, netagent={**NETAGENT, **told}, netproxy=NETPROXY).shown("wide")
    assert "programmed 2 fdb, 3 route" in text
    assert re.search(r"reconciled \d+s ago in 4 ms", text)
