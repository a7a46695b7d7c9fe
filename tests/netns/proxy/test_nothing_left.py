"""A proxy that is taken off a node. In a file of its own: no other proxy is on the node meanwhile."""

import re
import subprocess
from contextlib import contextmanager

import pytest
from manifests import port, service, slices
from namespace import inside
from rig import Rig
from under_test import IPTABLES, VARIANTS

kube_proxy = pytest.mark.kube_proxy

BUILT_IN = re.compile(r"table ip6? (filter|nat|mangle|raw) |(:|chain )(INPUT|FORWARD|OUTPUT|PREROUTING|POSTROUTING) ")
"""What iptables makes when it is first used, and leaves."""
WANTED = (":", "-A", "table", "\tchain", "\tset", "\tmap")


@kube_proxy("gap 5.4-2", "6.1-10")
@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_left_behind(board, variant):
    """Of what the proxy made; what others made is still there."""
    of_every_kind = service(
        type="LoadBalancer",
        balancer=["vip"],
        ports=[port(node=30080)],
        annotations={"nodenet.io/balance": "weighted"},
        sessionAffinity="ClientIP",
        externalTrafficPolicy="Local",
        loadBalancerSourceRanges=["10.10.0.0/16", "fd00:10:10::/64"],
    )
    with inside(board.network.namespace("node-1")), somebody_elses_rules():
        before = ruleset()
        rig = Rig(board, variant)
        rig.given(
            of_every_kind,
            slices("pod-1-1", "pod-2-1"),
            service("nobody", "cluster-ip-2"),
            health_check_ports=frozenset({31000}),
        )
        rig.expect("client -> vip:80 = pod-1-1")
        assert ruleset() != before
        rig.close()
        assert ruleset() == before


@contextmanager
def somebody_elses_rules():
    subprocess.run(["nft", "add", "table", "ip", "theirs"], check=True)
    for program in IPTABLES:
        subprocess.run([program, "-N", "THEIRS"], check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", "ip", "theirs"], check=True)
        for program in IPTABLES:
            subprocess.run([program, "-X", "THEIRS"], check=True)


def ruleset():
    """Tables, chains, sets and rules of this namespace, without counters."""
    programs = [f"{program}-{kind}-save" for program in ("iptables", "ip6tables") for kind in ("nft", "legacy")]
    lines = []
    for argv in (["nft", "--stateless", "list", "ruleset"], *([program] for program in programs)):
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        lines += [line.strip() for line in done.stdout.splitlines() if line.startswith(WANTED)]
    return sorted({line.partition(" [")[0] for line in lines if not BUILT_IN.match(line)})
