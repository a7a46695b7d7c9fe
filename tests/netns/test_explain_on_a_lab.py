"""`netctl explain` as a user meets it: on a lab of two nodes, in both modes, healthy and broken."""

import json
import subprocess
from signal import SIGCONT, SIGSTOP

import pytest
from deadline import PATIENCE_S, eventually
from ordinary_user import as_ordinary_user
from whole_lab import bring_up, netctl

from controlloop.client import get_json
from lab.processes import send
from lab.workload import apply, endpoint_slice, service

WEB, IDLE, UDP = "10.96.0.10", "10.96.0.11", "10.96.0.12"
FIREWALL = """
add table inet fw
add chain inet fw early { type filter hook prerouting priority -150; }
add rule inet fw early tcp dport 80 drop
"""


@pytest.fixture(scope="module", params=["nftables", "iptables"])
def lab(request):
    made = bring_up(mode=request.param, nodes=2)
    objects = [service("web", WEB), service("idle", IDLE), service("dns", UDP, protocol="UDP", port=53)]
    slices = [endpoint_slice("web", made, ["pod-1-1", "pod-2-1"])]
    apply(made, *objects, *slices, endpoint_slice("dns", made, ["pod-2-1"], protocol="UDP"))
    for node in made.nodes:
        eventually(lambda node=node: get_json(node.run_dir / "nodenet" / "netproxy.sock", "/status")["services"] == 3)
    yield made
    made.down()


def explained(cluster, *arguments):
    code, output, errors = netctl(cluster, "explain", *arguments, "-o", "json")
    assert not errors
    return code, json.loads(output)


@pytest.mark.kube_proxy("gap 5.5-1", "gap 5.7-4")
@pytest.mark.parametrize("source", ["pod-1-1", "pod-1-2", "-", "client"])
def test_a_service_by_name(lab, source):
    code, document = explained(lab, source, "default/web:main")
    assert (code, document["verdict"], document["live"]) == (0, "dnat", True)
    assert document["service"] == "default/web:main"
    ends = {each["address"]: each["probability"] for each in document["backends"]}
    assert ends == {str(lab.pod_address(pod)): pytest.approx(0.5) for pod in ("pod-1-1", "pod-2-1")}
    assert document["masquerade"] is (source != "pod-1-2")
    assert not document["warnings"]


def test_the_way_over_the_overlay(lab):
    code, document = explained(lab, "pod-1-2", f"{lab.pod_address('pod-2-1')}:8080")
    assert (code, document["verdict"], document["service"]) == (0, "pass", None)
    way = document["overlay"][str(lab.pod_address("pod-2-1"))]
    assert (way["device"], way["kind"], way["fdb"], way["mtu"]) == ("flannel.1", "vxlan", "10.10.0.2", 1450)
    assert way["neighbor"]
    assert way["peer"].startswith("10.244.")


def test_refused(lab):
    code, document = explained(lab, "pod-1-1", f"{IDLE}:80")
    assert (code, document["verdict"], document["reason"]["code"]) == (1, "reject", "no-endpoints")
    assert document["service"] == "default/idle:main"


@pytest.mark.kube_proxy("extra-8")
@pytest.mark.parametrize("arguments", [["pod-1-2", f"{WEB}:80"], ["-", f"{WEB}:80"], ["pod-1-2", f"{IDLE}:80"]])
def test_verified_by_a_packet(lab, arguments):
    # A packet that took too long is told as one that was not answered.
    eventually(lambda: explained(lab, *arguments, "--verify")[1]["verified"]["agrees"])


def test_over_udp(lab):
    code, document = explained(lab, "pod-1-2", "default/dns")
    assert (code, document["protocol"], document["port"]) == (0, "udp", 53)
    assert [each["port"] for each in document["backends"]] == [8080]


def test_a_foreign_rule_that_drops_is_named(lab):
    node = lab.host("node-1")
    node.run(["nft", "-f", "-"], stdin=FIREWALL)
    try:
        code, document = explained(lab, "pod-1-2", f"{WEB}:80")
    finally:
        node.run(["nft", "delete", "table", "inet", "fw"])
    assert (code, document["verdict"], document["reason"]["code"]) == (1, "drop", "foreign-rule")
    assert "inet fw early" in document["reason"]["text"]


HIDDEN = """
table ip filter {
    chain forward { type filter hook output priority 0; tcp dport 8080 drop; }
}
"""


def test_a_native_chain_in_the_table_of_iptables_is_seen(lab, tmp_path):
    """`iptables -S OUTPUT` goes on to say that the policy is ACCEPT, and that there is no rule."""
    node, bundle = lab.host("node-1"), str(tmp_path / "bundle.tar.zst")
    node.run(["iptables-nft", "-A", "OUTPUT", "-p", "icmp", "-j", "ACCEPT"])
    node.run(["nft", "-f", "-"], stdin=HIDDEN)
    try:
        code, document = explained(lab, "-", f"{WEB}:80", "--verify")
        assert netctl(lab, "bundle", bundle)[0] == 0
        findings = netctl(lab, "check", "host")[1]
    finally:
        node.run(["nft", "delete", "chain", "ip", "filter", "forward"])
        node.run(["iptables-nft", "-D", "OUTPUT", "-p", "icmp", "-j", "ACCEPT"])
    assert (code, document["verdict"], document["reason"]["code"]) == (1, "drop", "foreign-rule")
    assert "ip filter forward" in document["reason"]["text"]
    assert document["verified"]["agrees"]
    then, recorded = explained(lab, "-", f"{WEB}:80", "--from", bundle)
    assert (then, recorded["verdict"], recorded["reason"]) == (1, "drop", document["reason"])
    assert "NN313" not in findings


def test_with_the_daemon_down_the_kernel_still_answers(lab):
    process = lab.process("node-1", "netproxy")
    send([process], SIGSTOP)
    try:
        code, output, _ = netctl(lab, "explain", "pod-1-2", f"{WEB}:80")
        by_name = netctl(lab, "explain", "pod-1-2", "default/web")
    finally:
        send([process], SIGCONT)
    assert code == 0
    assert "live         no" in output
    assert f"{lab.pod_address('pod-2-1')}:8080" in output
    assert by_name[0] == 3
    assert by_name[2].startswith("netctl: explain: netproxy does not answer")


def test_a_lost_fdb_entry_is_seen(lab):
    """Before the agent repairs it: the question is asked of a stopped agent's node."""
    node = lab.host("node-1")
    agent = lab.process("node-1", "netagent")
    pod = lab.pod_address("pod-2-1")
    entries = [line for line in node.run(["bridge", "fdb", "show", "dev", "flannel.1"]).splitlines() if "dst" in line]
    mac = entries[0].split()[0]
    send([agent], SIGSTOP)
    try:
        node.run(["bridge", "fdb", "del", mac, "dev", "flannel.1"])
        code, document = explained(lab, "pod-1-2", f"{pod}:8080")
    finally:
        send([agent], SIGCONT)
    assert code == 1
    assert "no FDB entry" in document["overlay"][str(pod)]["problem"]
    eventually(lambda: explained(lab, "pod-1-2", f"{pod}:8080")[0] == 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["10.96.0.10"], "is no destination"),
        (["10.96.0.10:0"], "'0' is no port"),
        (["10.96.0.10:99999"], "'99999' is no port"),
        (["10.96.0.10:80/icmp"], "'icmp' is no protocol"),
        (["[10.96.0:80]:80"], "is no address"),
        (["fd00::1", "10.96.0.10:80"], "two families"),
        (["nobody", "10.96.0.10:80"], "'nobody' is no address"),
        (["default/nope"], "serves no such Service"),
        (["default/web:metrics"], "it has main/tcp"),
        (["default/web;reboot:80"], "serves no such Service"),
        (["a", "b", "c"], "is too much"),
    ],
)
def test_bad_words(lab, arguments, words):
    code, output, errors = netctl(lab, "explain", *arguments)
    assert (code, output) == (2, "")
    assert words in errors
    assert errors.count("\n") == 1


def test_without_the_right_to_read_rules(lab):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with lab.host("node-1").popen(as_ordinary_user(["netctl", "explain", f"{WEB}:80"]), **options) as process:
        output, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, output) == (5, "")
    assert "root" in errors
    assert "Traceback" not in errors
