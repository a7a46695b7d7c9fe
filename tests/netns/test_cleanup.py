"""--cleanup takes away what a daemon left in the kernel and in its folders, and nothing that is somebody else's."""

import os
import re
import sys
from pathlib import Path
from signal import SIGTERM

import pytest
from deadline import eventually
from settled import has_settled

from lab.cluster import up
from lab.host import as_daemon
from lab.topology import Spec

DAEMONS = ["netagent", "netproxy"]
KERNEL = (
    "ip -o addr",
    "ip route show table all",
    "ip -6 route show table all",
    "ip rule",
    "ip neigh show nud permanent",
    "bridge fdb show state permanent",
    "nft list ruleset",
    "iptables-save",
    "ip6tables-save",
    "ls -A /run/flannel /run/nodenet",
)
CHAINS = {
    "raw": ("PREROUTING", "OUTPUT"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
}
COUNTERS = re.compile(r"packets [0-9]+ bytes [0-9]+|\[[0-9]+:[0-9]+\]")
FOREIGN = (
    "nft add table inet somebody",
    "nft add chain inet somebody input { type filter hook input priority 0; }",
    "nft add rule inet somebody input tcp dport 22 accept",
    *(
        f"{iptables} -t {table} -A {chain} -p tcp -j RETURN"
        for iptables in ("iptables", "ip6tables")
        for table, chains in CHAINS.items()
        for chain in chains
    ),
    "ip route add 198.51.100.0/24 via 10.10.0.1",
    "ip link add vxlan9 type vxlan id 9 dstport 4789",
)


@pytest.fixture(scope="module")
def lab():
    cluster = up(Spec(f"clean-{os.getpid()}", nodes=2, pods_per_node=1, mode="nftables"), owned=True)
    yield cluster
    cluster.down()


def dump(host):
    """All that a daemon could have touched; without dates, packet counters and what bridges have learned."""
    result = {}
    for command in KERNEL:
        lines = host.run(command.split()).splitlines()
        result[command] = [COUNTERS.sub("N", line) for line in lines if not line.startswith("#")]
    return result


def clean_up(lab, daemon):
    lab.host("node-2").run(as_daemon([str(Path(sys.executable).with_name(daemon)), "--cleanup"]))


@pytest.fixture(scope="module")
def neighborhood(lab):
    """Rules and routes of somebody else, in each chain that iptables itself makes for its first user and then keeps."""
    for command in FOREIGN:
        lab.host("node-2").run(command.split())


@pytest.fixture
def cleaned(lab, neighborhood):
    """Node 2 without daemons."""
    for daemon in DAEMONS:
        lab.stop("node-2", daemon, SIGTERM)
        clean_up(lab, daemon)
    host = lab.host("node-2")
    eventually(lambda: has_settled(host.run))
    yield host
    lab.start_daemons([("node-2", daemon) for daemon in DAEMONS])


@pytest.mark.flannel("50")
@pytest.mark.parametrize("mode", ["nftables", "iptables"])
def test_cleanup_removes_exactly_what_is_ours_and_may_be_repeated(lab, cleaned, mode):
    before = dump(cleaned)
    lab.spec = Spec(lab.spec.name, nodes=2, pods_per_node=1, mode=mode)
    lab.start_daemons([("node-2", daemon) for daemon in DAEMONS])
    assert dump(cleaned) != before
    for daemon in DAEMONS:
        lab.stop("node-2", daemon, SIGTERM)
    for _ in range(2):
        for daemon in DAEMONS:
            clean_up(lab, daemon)
        assert dump(cleaned) == before
