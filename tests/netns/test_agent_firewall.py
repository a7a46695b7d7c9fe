"""The firewall as the running agent keeps it."""

import sys
from operator import itemgetter
from pathlib import Path

import pytest
from deadline import becomes, eventually

from controlloop.client import get_json

FORGE = str(Path(__file__).with_name("forge.py"))
COUNT = 200


def datagrams_for_nobody(pod):
    """How many UDP datagrams reached the pod and found no socket (RFC 4113)."""
    names, values = (
        line.split() for line in pod.run(["cat", "/proc/net/snmp"]).splitlines() if line.startswith("Udp:")
    )
    return int(values[names.index("NoPorts")])


def delivered(cluster, sender):
    """How many of COUNT forged packets that `sender` sends to node-1 reach pod-1-1."""
    pod, node = cluster.host("pod-1-1"), str(cluster.spec.attached["node-1"].ip)
    macs = {lease["PublicIP"]: lease["BackendData"]["VtepMAC"] for lease in cluster.leases().values()}
    before = datagrams_for_nobody(pod)
    argv = [sys.executable, FORGE, node, macs[node], str(cluster.pod_address("pod-1-1")), str(COUNT)]
    cluster.host(sender).run(argv)
    # A ping behind them has been answered when they have been dealt with.
    cluster.host("pod-2-1").run(["ping", "-c1", "-W30", str(cluster.pod_address("pod-1-1"))])
    return datagrams_for_nobody(pod) - before


def test_vxlan_from_a_host_that_is_no_peer_reaches_no_pod(cluster):
    assert delivered(cluster, "client") == 0


def test_the_same_packets_from_a_peer_would_be_delivered(cluster):
    """So the test above is about who sends, not about what is sent."""
    assert delivered(cluster, "node-2") == COUNT


DRIFT = ["nft flush ruleset", "nft delete table ip netagent", "iptables -F NETAGENT-FORWARD", "iptables -F FORWARD"]


@pytest.mark.flannel("38", "A10")
@pytest.mark.parametrize("drift", DRIFT)
def test_rules_that_somebody_takes_away_come_back(cluster, drift):
    node = cluster.host("node-3")
    before = rules(node)
    assert all(before)
    node.run(drift.split())
    becomes(lambda: rules(node), before)


def rules(node):
    """What is ours in both; nft may say that there is nothing."""
    chains = node.run(["iptables-save", "-t", "filter"])
    table = node.run(["nft", "list", "table", "ip", "netagent"], check=False)
    return [line for line in chains.splitlines() if "NETAGENT" in line], table


def status(node):
    return get_json(node.run_dir / "nodenet" / "netagent.sock", "/status")


def test_whoever_keeps_taking_them_away_is_named_and_peace_brings_them_back(cluster):
    node = cluster.host("node-3")
    before = rules(node)
    vandal = ["bash", "-c", "while nft flush chain ip netagent input; do sleep 0.05; done"]
    with node.popen(vandal) as process:
        try:
            [finding] = eventually(lambda: status(node)["findings"])
            assert finding["name"].startswith("firewall rules (netagent in ")
            assert (finding["code"], "last by nft; " in finding["reason"]) == ("NN108", True)
            assert status(node)["waiting_for"] == "firewall rules that somebody keeps undoing"
        finally:
            process.kill()
    becomes(lambda: rules(node), before)
    eventually(lambda: status(node), that=itemgetter("ready"))
