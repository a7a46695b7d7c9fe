"""Every fault that a lab can be given raises its finding and no other lab's peace, and goes again; packets judge what
it does to traffic.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from deadline import PATIENCE_S, eventually
from schemas import validated
from whole_lab import bring_up

from lab.cluster import LabError
from lab.faults.breaking import FAULTS, break_lab, heal_lab, seen_on
from lab.topology import ETCD_URL
from lab.workload import PORT, WEB_ADDRESS, call

NETCTL = str(Path(sys.executable).with_name("netctl"))
CUT = {"link", "vxlan", "forwarding", "input", "forward"}
"""Faults that keep pods of two nodes from each other. All others but these must leave that alone:"""
DISTURBING = {"loss"}
SERVICE_FAULTS = {"endpoint", "redirect"}


@pytest.fixture(scope="module")
def cluster():
    made = bring_up(nodes=2, pods_per_node=1, mode="nftables")
    yield made
    made.down()


@pytest.fixture
def broken(cluster):
    """Breaks, and heals what the test did not."""
    yield lambda name, target="": break_lab(cluster, name, target)
    list(heal_lab(cluster))


def codes(node, *look):
    """Of all findings that this command shows there."""
    argv, environment = [NETCTL, *look, "-o", "json"], {"NODENET_ETCD_ENDPOINTS": ETCD_URL}
    with node.popen(argv, stdout=subprocess.PIPE, text=True, environment=environment) as process:
        document = json.loads(process.communicate(timeout=PATIENCE_S)[0])
    return {item["code"] for item in document.get("findings", document.get("items"))}


def test_a_healthy_lab_raises_none_of_their_codes(cluster):
    node, looks = cluster.host("node-2"), {fault.look for fault in FAULTS.values()}
    # What is slow to answer is a finding for a moment.
    eventually(
        lambda: not set().union(*(codes(node, *look) for look in looks)) & {each.code for each in FAULTS.values()}
    )


@pytest.mark.parametrize("name", [name for name in FAULTS if not FAULTS[name].fades_s])
def test_a_fault_raises_its_finding_until_it_is_healed(cluster, broken, name):
    fault = FAULTS[name]
    where = broken(name)
    node = cluster.host(seen_on(fault, cluster.spec, where))
    eventually(lambda: codes(node, *fault.look), that=lambda found: fault.code in found)
    judge_traffic(cluster, name)
    assert [healed.name for healed, _ in heal_lab(cluster)] == [name]
    eventually(lambda: codes(node, *fault.look), that=lambda found: fault.code not in found)
    eventually(lambda: pods_talk(cluster))


@pytest.mark.parametrize("name", [name for name in FAULTS if FAULTS[name].fades_s])
def test_traffic_comes_back_before_a_finding_that_fades(cluster, broken, name):
    """Those look at the last minute, so that a fault that comes and goes does not flicker."""
    fault = FAULTS[name]
    broken(name)
    eventually(lambda: codes(cluster.host("node-2"), *fault.look), that=lambda found: fault.code in found)
    list(heal_lab(cluster))
    eventually(lambda: pods_talk(cluster))


def judge_traffic(cluster, name):
    if name in CUT:
        eventually(lambda: not pods_talk(cluster))
    elif name not in DISTURBING:
        assert pods_talk(cluster)
    if name in SERVICE_FAULTS:
        eventually(lambda: call(cluster.host("pod-2-1"), WEB_ADDRESS, 80) == ["refused"])
    elif name == "mtu":
        assert not is_answered(cluster, 1400)
    elif name == "loss":
        eventually(lambda: 0 < answers_of_40(cluster) < 40)


def pods_talk(cluster):
    pod = "pod-2-1"
    if not cluster.is_running(pod, "responder"):
        return is_answered(cluster, 56)
    [said] = call(cluster.host("pod-1-1"), str(cluster.pod_address(pod)), PORT)
    return said.startswith(pod)


def is_answered(cluster, size):
    argv = ["ping", "-c1", "-W1", "-M", "do", "-s", str(size), str(cluster.pod_address("pod-2-1"))]
    return cluster.host("pod-1-1").succeeds(argv)


def answers_of_40(cluster):
    argv = ["ping", "-c40", "-i0.01", "-W1", "-q", str(cluster.spec.attached["node-2"].ip)]
    said = cluster.host("node-1").run(argv, check=False)
    return int(said.partition(" received")[0].rpartition(" ")[2])


# The commands


def lab(cluster, *arguments):
    argv = [NETCTL, "lab", *arguments, "--name", cluster.spec.name]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


def test_break_says_what_is_wrong_where_to_see_it_and_how_to_end_it(cluster):
    done = lab(cluster, "break", "forwarding", "node-1")
    try:
        named = f"--name {cluster.spec.name}"
        assert done.stdout == (
            "node-1 does not forward.\n"
            f"  see:  netctl lab exec {named} node-1 -- netctl check host   (NN301)\n"
            f"  heal: netctl lab heal {named} forwarding\n"
        )
        assert "fault forwarding on node-1; " in lab(cluster, "status").stdout
    finally:
        done = lab(cluster, "heal")
    assert done.stdout.startswith("forwarding on node-1 is healed\n")
    assert lab(cluster, "status").stdout.count("fault ") == 0


def test_the_list_of_faults_is_a_document_and_a_table_of_80_columns():
    shown = subprocess.run([NETCTL, "lab", "break", "-o", "json"], capture_output=True, text=True, check=True)
    items = validated(json.loads(shown.stdout))["items"]
    assert {item["fault"]: item["code"] for item in items} == {name: fault.code for name, fault in FAULTS.items()}
    shown = subprocess.run([NETCTL, "lab", "break"], capture_output=True, text=True, check=True)
    assert max(map(len, shown.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "no fault 'nosuch'; there are loss, link"),
        (["link", "pod-1-1"], "fault link has no target 'pod-1-1'; it can have node-1, node-2"),
        (["etcd", "node-1"], "fault etcd has no target 'node-1'; it can have etcd"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_by_name(cluster, arguments, said):
    done = lab(cluster, "break", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr


def test_a_fault_is_there_once_and_only_what_is_there_is_healed(cluster, broken):
    broken("rp-filter")
    with pytest.raises(
        LabError, match=r"rp-filter is there already, on node-2; `netctl lab heal --name \S+ rp-filter` ends it"
    ):
        broken("rp-filter", "node-1")
    with pytest.raises(LabError, match="fault link is not there; those there are: rp-filter"):
        list(heal_lab(cluster, ["link"]))
