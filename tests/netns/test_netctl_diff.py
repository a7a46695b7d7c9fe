"""`netctl diff`, `get` and `plan` as commands, on a whole lab with real daemons, in both modes."""

import json
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from deadline import eventually
from ordinary_user import as_ordinary_user
from schemas import validated
from whole_lab import bring_up

NETCTL = str(Path(sys.executable).parent / "netctl")
SERVICE = {
    "apiVersion": "v1",
    "kind": "List",
    "items": [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"clusterIP": "10.96.7.7", "ports": [{"name": "http", "port": 80}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "web-1",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "web"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": ["10.244.200.5"]}],
        },
    ],
}


in_one_mode = pytest.mark.parametrize("lab", ["nftables"], indirect=True, scope="module")
"""What does not depend on it."""


@pytest.fixture(scope="module", params=["nftables", "iptables"])
def lab(request, tmp_path_factory):
    made = bring_up(nodes=2, pods_per_node=1, mode=request.param)
    try:
        path = tmp_path_factory.mktemp("manifests") / "web.json"
        path.write_text(json.dumps(SERVICE))
        made.manifest = str(path)
        run(made, "apply", "-f", made.manifest, *made.etcd_option)
        eventually(lambda: "10.96.7.7" in run(made, "get", "services"))
        eventually(lambda: exit_code(made, "diff") == 0)
        yield made
    finally:
        made.down()


def node(lab):
    return lab.host("node-1")


def run(lab, *words):
    return node(lab).run([NETCTL, *words], check=False)


def exit_code(lab, *words):
    return int(node(lab).run(["sh", "-c", '"$@" >/dev/null 2>&1; echo $?', "sh", NETCTL, *words]))


def test_a_healthy_node_has_no_drift(lab):
    assert run(lab, "diff").startswith("no drift: ")
    document = validated(json.loads(run(lab, "diff", "-o", "json")))
    assert document["items"] == document["unread"] == []


def test_the_lists_say_what_is_there(lab):
    services = validated(json.loads(run(lab, "get", "services", "web", "-o", "json")))
    assert [each["cluster_ips"] for each in services["items"]] == [["10.96.7.7"]]
    endpoints = validated(json.loads(run(lab, "get", "endpoints", "web", "-o", "json")))
    assert [each["address"] for each in endpoints["items"]] == ["10.244.200.5"]
    rules = validated(json.loads(run(lab, "get", "rules", "default/web", "-o", "json")))
    assert any("10.244.200.5" in each["rule"] for each in rules["items"])
    routes = validated(json.loads(run(lab, "get", "routes", "-o", "json")))
    assert [each["state"] for each in routes["items"] if each["type"] == "unicast"] == ["ok"]
    entries = validated(json.loads(run(lab, "get", "fdb", "-o", "json")))
    assert {each["kind"] for each in entries["items"]} == {"fdb", "neighbor"}


def test_a_plan_of_what_is_there_is_empty_and_one_of_its_deletion_is_not(lab):
    plan = validated(json.loads(run(lab, "plan", "-f", lab.manifest, "-o", "json")))
    assert [each["change"] for each in plan["items"]] == ["unchanged"]
    plan = validated(json.loads(run(lab, "plan", "--delete", "-f", lab.manifest, "-o", "json")))
    assert [each["change"] for each in plan["items"]] == ["removed"]
    assert "10.96.7.7" in run(lab, "get", "services")


@contextmanager
def fight(lab, script):
    """Somebody who undoes the same repair again and again."""
    host = node(lab)
    with (host.folder / "fight.log").open("ab") as log:
        pid = host.start(["sh", "-c", f"while :; do {script}; sleep 0.02; done"], log)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)


UNDO = {
    "nftables": "nft delete element ip netproxy services '{ 10.96.7.7 . tcp . 80 }'",
    "iptables": "iptables -t nat -D NETPROXY-SERVICES 1",
}


def drift(lab):
    return validated(json.loads(run(lab, "diff", "-o", "json")))["items"]


def test_a_fight_over_a_rule_shows_as_drift_of_its_service(lab):
    with fight(lab, UNDO[lab.spec.mode]):
        eventually(lambda: any(each["owner"] in ("Service default/web", "netproxy") for each in drift(lab)))
        found = drift(lab)
    assert all(each["cause"] == "missing" for each in found)
    assert all("netproxy" in each["place"] or "iptables" in each["place"] for each in found)
    eventually(lambda: exit_code(lab, "diff") == 0)


@in_one_mode
def test_a_fight_over_a_route_shows_as_drift_of_its_peer(lab):
    [route] = [each for each in json.loads(run(lab, "get", "routes", "-o", "json"))["items"] if each["peer"]]
    with fight(lab, f"ip route del {route['prefix']}"):
        eventually(lambda: any(each["owner"] == f"peer {route['peer']}" for each in drift(lab)))
    eventually(lambda: exit_code(lab, "diff") == 0)


@in_one_mode
def test_a_daemon_that_hangs_is_silent(lab):
    process = lab.process("node-1", "netproxy")
    os.kill(process.pid, signal.SIGSTOP)
    try:
        assert exit_code(lab, "diff") == 3
        document = validated(json.loads(run(lab, "diff", "-o", "json")))
        assert [each["daemon"] for each in document["unread"]] == ["netproxy"]
    finally:
        os.kill(process.pid, signal.SIGCONT)
    eventually(lambda: exit_code(lab, "diff") == 0)


@in_one_mode
def test_who_may_not_look_is_refused(lab):
    words = as_ordinary_user([NETCTL, "diff"])
    assert int(node(lab).run(["sh", "-c", '"$@" >/dev/null 2>&1; echo $?', "sh", *words])) == 5


def test_output_into_a_closed_pipe_is_no_error(lab):
    assert node(lab).run(["sh", "-c", '{ "$@" | true; } 2>&1', "sh", NETCTL, "get", "rules", "-o", "json"]) == ""
