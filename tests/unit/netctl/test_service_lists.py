"""`netctl get services` and `endpoints`: through netproxy's pages, as netctl gets them."""

import json

import msgspec
import pytest
from builders import make_endpoint, make_endpoint_slice, make_service
from schemas import validated

from controlloop.client import UnreachableError
from controlloop.family import Family
from controlloop.flags import run_command
from netctl.main import netctl
from proxy.belief_pages import objects_page
from proxy.config import ProxyMode
from proxy.node import Node, Surroundings
from proxy.objects import Kind, ObjectName
from proxy.services import Options
from proxy.sources import Batch, Update
from proxy.tracker import Tracker

DOCUMENTS = (
    make_service(type="NodePort", ports=[("http", "TCP", 80, 30080)], annotations={"nodenet.io/balance": "odd"}),
    make_endpoint_slice(
        endpoints=[
            make_endpoint("10.244.1.5", node="node-1", zone="zone-a"),
            make_endpoint("10.244.2.5", node="node-2", zone="zone-b"),
            make_endpoint("10.244.2.6", node="node-2", ready=False, serving=True, terminating=True),
            make_endpoint("10.244.2.7", node="node-2", ready=False),
        ]
    ),
    make_service(
        name="six",
        cluster_ips=["fd00:96::1"],
        annotations={"nodenet.io/balance": "weighted", "nodenet.io/weights": "fd00:244::5=3"},
        externalIPs=["2001:db8::9"],
        sessionAffinity="ClientIP",
    ),
    make_endpoint_slice(name="six-1", service="six", address_type="IPv6", endpoints=["fd00:244::5", "fd00:244::6"]),
    make_service(name="idle", cluster_ips=["10.96.0.99"]),
    make_service(name="broken", cluster_ips=["10.96.0.98"], ports=[("a", "TCP", 80), ("a", "TCP", 81)]),
)


@pytest.fixture(autouse=True)
def pages(monkeypatch):
    tracker = Tracker(Node("node-1"), Options())
    named = [
        (Kind(each["kind"]), ObjectName(each["metadata"]["namespace"], each["metadata"]["name"]), each)
        for each in DOCUMENTS
    ]
    tracker.apply(
        Batch(tuple(Update(kind, name, json.dumps(each).encode()) for kind, name, each in named), listed=True)
    )
    taken = tracker.taken_in()
    around = [Surroundings(family) for family in Family]
    head = {"mode": ProxyMode.NFTABLES, "node": taken.node, "options": taken.options, "surroundings": around}
    skipped = [{"name": each.name, "reason": each.reason} for each in tracker.skipped.values()]
    answers = {
        "/objects": msgspec.json.decode(objects_page(head, taken)),
        "/status": {"skipped": skipped, "quarantined": [{"name": "default/idle", "reason": "the kernel refuses it"}]},
    }
    monkeypatch.setattr("netctl.node.LiveNode.page", lambda _node, _daemon, page: answers[page])


def run(capsys, *words, code=0):
    assert run_command(netctl, ["get", *words]) == code
    return capsys.readouterr().out


def test_services_as_a_table(capsys):
    assert run(capsys, "services", code=1).splitlines() == [
        "SERVICE         CLUSTER IP  PORTS         READY  STATE",
        "default/broken  -           -               0/0  skipped",
        "default/idle    10.96.0.99  80/tcp          0/0  quarantined",
        "default/six     fd00:96::1  80/tcp          2/2  ok",
        "default/web     10.96.0.10  80:30080/tcp    2/4  partly",
    ]


def test_services_as_a_document_say_what_is_left_out(capsys):
    items = validated(json.loads(run(capsys, "services", "-o", "json", code=1)))["items"]
    reasons = {item["name"]: item["reason"] or "" for item in items}
    assert "is there twice" in reasons["broken"]
    assert "odd is none of" in reasons["web"]
    assert reasons["six"] == ""
    web = items[-1]
    assert (web["endpoints"], web["ready"], web["terminating"], web["local"]) == (4, 2, 1, 1)


def test_one_service_by_its_name(capsys):
    assert run(capsys, "services", "six", "-o", "name") == "service/default/six\n"
    assert run(capsys, "services", "default/six", "-o", "name") == "service/default/six\n"
    wide = run(capsys, "services", "six", "-o", "wide")
    assert "2001:db8::9" in wide
    assert "weighted" in wide
    assert "3h00m" in wide


@pytest.mark.parametrize("name", ["none", "a/b/c", "/x", "default/"])
def test_a_name_that_is_no_service_is_one_line_and_2(capsys, name):
    for noun in "services", "endpoints":
        assert run_command(netctl, ["get", noun, name]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert name in said.err
        assert len(said.err.splitlines()) == 1


def test_endpoints_as_a_table(capsys):
    assert run(capsys, "endpoints", "web").splitlines() == [
        "SERVICE           ENDPOINT         SHARE  STATE        PLACE",
        "default/web:http  10.244.1.5:8080  50.0%  ready        here",
        "default/web:http  10.244.2.5:8080  50.0%  ready        zone-b",
        "default/web:http  10.244.2.6:8080   0.0%  terminating  -",
        "default/web:http  10.244.2.7:8080   0.0%  not ready    -",
    ]


def test_shares_follow_weights(capsys):
    items = validated(json.loads(run(capsys, "endpoints", "six", "-o", "json")))["items"]
    assert [(item["address"], item["share"]) for item in items] == [("fd00:244::5", 0.75), ("fd00:244::6", 0.25)]
    assert (
        run(capsys, "endpoints", "six", "-o", "name").splitlines()[0] == "endpoint/default/six:http/[fd00:244::5]:8080"
    )


@pytest.mark.parametrize("noun", ["services", "endpoints"])
def test_a_silent_proxy_is_3(monkeypatch, capsys, noun):
    def silent(*_words):
        raise UnreachableError("no such file")

    monkeypatch.setattr("netctl.node.LiveNode.page", silent)
    assert run_command(netctl, ["get", noun]) == 3
    assert capsys.readouterr().err == "netctl: netproxy does not answer (no such file)\n"
