"""The units under systemd itself, installed as docs/operations.md says, line by line."""

import json
import re

import pytest
from settled import has_settled
from systemd_node import CLONE, booted, missing

PAGE = (CLONE / "docs/operations.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
DAEMONS = ["netagent", "netproxy"]
CAP_NET_ADMIN, CAP_NET_RAW = 1 << 12, 1 << 13
NETCTL = "netctl"

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}")


def block(word):
    """The one block of the page that has this word in it."""
    [found] = [each for each in BLOCKS if word in each]
    return found


def network(backend):
    text = json.dumps({"Network": "10.244.0.0/16", "Backend": {"Type": backend}})
    return f"ETCDCTL_API=3 etcdctl put /coreos.com/network/config '{text}'"


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with booted(tmp_path_factory.mktemp("systemd") / "node") as node:
        node.run("systemd-run -q --unit=store --property=Restart=always etcd --data-dir /tmp/etcd")
        node.eventually(lambda: "OK" in node.run(network("vxlan"), check=False), "in etcd")
        lines = block("systemctl enable --now netagent netproxy")
        asked = re.compile(r"^/usr/lib/nodenet/bin/pip install --require.*\n.*\n", re.MULTILINE)
        assert asked.search(lines)
        node.run(f"cd {CLONE}\n{asked.sub(lambda _: node.install_packages(), lines)}")
        node.eventually(lambda: has_settled(lambda argv: node.run(" ".join(argv))), "settled")
        yield node


def status(node):
    return json.loads(node.run(f"{NETCTL} status -o json", check=False))


def is_ready(node):
    found = status(node)
    return all(found[daemon] and found[daemon]["ready"] for daemon in DAEMONS)


def process(node, daemon):
    lines = node.run(f"cat /proc/{node.show(daemon, 'MainPID')}/status").splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def test_both_daemons_are_up_and_ready(node):
    assert [node.show(daemon, "ActiveState") for daemon in DAEMONS] == ["active", "active"]
    found = status(node)
    assert (found["ok"], found["findings"]) == (True, [])
    assert node.show("netagent", "StatusText") == f"lease {found['netagent']['lease']}, 0 peers"
    assert "flannel.1" in node.run("ip -br link")


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_is_not_root_and_has_one_power(node, daemon):
    found = process(node, daemon)
    [uid] = node.run("id -u nodenet").split()
    assert found["Uid"] == [uid] * 4
    assert {int(found[name][0], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {CAP_NET_ADMIN}
    assert found["NoNewPrivs"] == ["1"]


@pytest.mark.parametrize("daemon", DAEMONS)
def test_whoever_is_in_the_group_may_ask_and_nobody_else(node, daemon):
    ask = f"curl -s --max-time 5 --unix-socket /run/nodenet/{daemon}.sock http://localhost/readyz"
    group = node.run("id -g nodenet").strip()
    assert node.run(f"setpriv --reuid 1234 --regid {group} --clear-groups {ask}") == "ok\n"
    assert node.run(f"setpriv --reuid 1234 --regid 1234 --clear-groups {ask} || true") == ""


def rules_and_routes(node):
    """Without counters."""
    shown = node.run(
        "nft -s list ruleset; ip -d link show flannel.1; ip route; ip -6 route; cat /run/flannel/subnet.env"
    )
    return re.sub(r"counter packets \d+ bytes \d+", "counter", shown)


def pids(node):
    return [node.show(daemon, "MainPID") for daemon in DAEMONS]


def are_back(node, before):
    """Both, as other processes."""
    return not {"0", *before} & {*pids(node)} and is_ready(node)


def test_killed_daemons_come_back_and_nothing_else_changes(node):
    before, killed = rules_and_routes(node), pids(node)
    node.run(f"kill -9 {' '.join(killed)}")
    assert rules_and_routes(node) == before
    node.eventually(lambda: are_back(node, killed), "back")
    assert rules_and_routes(node) == before


def test_daemons_that_hang_are_noticed(node):
    """In less time than the unit's, so that the test does not take it."""
    quick = [f"/run/systemd/system/{daemon}.service.d" for daemon in DAEMONS]
    for folder in quick:
        node.run(f"mkdir -p {folder}; printf '[Service]\\nWatchdogSec=4\\nRestartSec=0\\n' > {folder}/quick.conf")
    node.run(f"systemctl daemon-reload; systemctl restart {' '.join(DAEMONS)}")
    node.eventually(lambda: is_ready(node), "ready")
    hanging = pids(node)
    node.run(f"kill -STOP {' '.join(hanging)}")
    node.eventually(lambda: are_back(node, hanging), "back")
    for daemon in DAEMONS:
        assert "Watchdog timeout" in node.run(f"journalctl --no-pager -u {daemon}")
    node.run(f"rm -r {' '.join(quick)}; systemctl daemon-reload; systemctl restart {' '.join(DAEMONS)}")


def test_wireguard_go_outlives_its_daemon(node):
    node.run(network("wireguard"))
    node.run(f"cd {CLONE}/systemd\n{block('netagent.service.d/wireguard-go.conf')}")
    node.eventually(lambda: is_ready(node), "ready")
    keeper = node.run("pgrep -x wireguard-go").split()
    assert len(keeper) == 1
    assert "interface: flannel-wg\n" in node.run("wg show")
    node.run("systemctl restart netagent")
    node.eventually(lambda: is_ready(node), "ready again")
    assert node.run("pgrep -x wireguard-go").split() == keeper
    node.run(f"{network('vxlan')}; systemctl restart netagent")
    node.eventually(lambda: "flannel.1" in node.run("ip -br link") and is_ready(node), "back to vxlan")
    assert node.run("pgrep -x wireguard-go || true") == ""


def test_sets_for_affinity_have_their_drop_in(node):
    node.run(f"cd {CLONE}/systemd\n{block('netproxy.service.d/iptables-affinity.conf')}")
    node.eventually(lambda: is_ready(node), "ready")
    assert int(process(node, "netproxy")["CapEff"][0], 16) == CAP_NET_ADMIN | CAP_NET_RAW
    node.run("rm /etc/systemd/system/netproxy.service.d/iptables-affinity.conf")


def test_legacy_iptables_is_written_with_its_drop_in(node):
    for program in ("iptables", "ip6tables"):
        node.run(f"update-alternatives --quiet --set {program} /usr/sbin/{program}-legacy")
    node.run(f"cd {CLONE}/systemd\n{block('netproxy.service.d/legacy-iptables.conf')}")
    node.eventually(lambda: is_ready(node), "ready")
    assert int(process(node, "netproxy")["CapEff"][0], 16) == CAP_NET_ADMIN | CAP_NET_RAW
    assert ":NETAGENT" in node.run("iptables-legacy-save")
    assert ":NETPROXY-SERVICES" in node.run("iptables-legacy-save -t nat")


FLANNELD_WAS_HERE = """
    printf '[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n' \\
        > /etc/systemd/system/flanneld.service
    systemctl daemon-reload
    systemctl enable --now flanneld
    iptables -t nat -N FLANNEL-POSTRTG
    iptables -t nat -A POSTROUTING -j FLANNEL-POSTRTG
    ip link set flannel.1 address 02:00:00:00:00:07
"""
"""What it leaves, with a stand-in for the program; device, lease and subnet.env are as another agent made them."""


def device(node):
    [found] = json.loads(node.run("ip -j link show flannel.1"))
    return found["ifindex"]


def test_a_node_of_flannel_is_taken_over_and_given_back(node):
    node.run(
        "systemctl disable --now netagent; /usr/lib/nodenet/bin/netagent --cleanup; systemctl enable --now netagent"
    )
    node.eventually(lambda: is_ready(node), "ready")
    node.run(f"systemctl disable --now netagent\n{FLANNELD_WAS_HERE}")
    before = device(node), node.run("cat /run/flannel/subnet.env")
    node.run(block("systemctl disable --now flanneld"))
    assert (device(node), node.run("cat /run/flannel/subnet.env")) == before
    assert "FLANNEL" not in node.run("iptables-save")
    assert node.show("flanneld", "ActiveState") == "inactive"
    node.run(block("systemctl enable --now flanneld"))
    assert (device(node), node.run("cat /run/flannel/subnet.env")) == before
    assert "netagent" not in node.run("nft list tables")
    assert node.show("netagent", "ActiveState") == "inactive"
    node.run("systemctl disable --now flanneld; systemctl start netagent")
    node.eventually(lambda: is_ready(node), "ready again")


def test_metrics_are_on_the_socket(node):
    assert "netagent_ready 1" in node.run(block("localhost/metrics"))


def test_stopping_leaves_everything_and_cleaning_up_takes_only_ours(node):
    node.run("nft add table ip foreign")
    node.run("systemctl stop netproxy netagent")
    assert ":NETPROXY-SERVICES" in node.run("iptables-legacy-save -t nat")
    assert "flannel.1" in node.run("ip -br link")
    node.run(f"{block('netproxy --cleanup')}\n/usr/lib/nodenet/bin/netagent --cleanup")
    assert "NETPROXY" not in node.run("iptables-legacy-save; iptables-nft-save")
    assert "flannel" not in node.run("ip -br link; ip route")
    assert node.run("nft list tables").split("\n").count("table ip foreign") == 1
