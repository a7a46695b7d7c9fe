"""`netctl check` and `netctl wait` as an operator types them: on a healthy lab, and with faults made one by one."""

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from signal import Signals

import pytest
from deadline import PATIENCE_S, becomes, eventually
from namespace import fresh_namespace
from whole_lab import bring_up

from lab.host import as_daemon
from lab.workload import apply, endpoint_slice, service

NETCTL = str(Path(sys.executable).with_name("netctl"))
BARE_PYTHON = (sys.executable, "-I", "-S", "-c")

FIREWALL = """table inet strict {
 chain input {
  type filter hook input priority 0; policy %s;
  tcp dport 22 accept
 }
 chain forward {
  type filter hook forward priority 0; policy %s;
  ct state established accept
 }
}
"""
TRANSLATES = """table ip early {
 chain pre {
  type nat hook prerouting priority -150;
  ip daddr 10.96.0.0/16 tcp dport { 80, 443 } redirect to :8080
 }
}
"""
FIREWALLD = "table inet firewalld {\n chain in {\n type filter hook input priority 10;\n }\n}\n"
CUT = "table ip cut {\n chain in {\n type filter hook prerouting priority -300;\n udp dport 8472 drop\n }\n}\n"

LISTEN = "import socket, sys; s = socket.create_server(('', 30080)); print('listening', flush=True); sys.stdin.read()"
BIND = "import socket, sys; s = socket.socket(type=2); s.bind(('', 8472)); print('bound', flush=True); sys.stdin.read()"
WRONG_CHECKSUMS = """
import socket, struct
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
for _ in range(30):
    raw.sendto(struct.pack("!4H", 40000, 9, 16, 0x1234) + bytes(8), ("127.0.0.1", 0))
"""


@pytest.fixture(scope="module", params=["nftables", "iptables"])
def cluster(request):
    made = bring_up(nodes=2, pods_per_node=1, mode=request.param)
    try:
        serve_web(made)
        yield made
    finally:
        made.down()


def serve_web(cluster):
    pods = [pod for _, pod in cluster.spec.all_pods]
    web = service("web", "10.96.0.10")
    web["spec"]["type"] = "NodePort"
    web["spec"]["ports"][0]["nodePort"] = 30080
    apply(cluster, web, endpoint_slice("web", cluster, pods))


def checked(host, what, *options):
    """(exit code, codes) of one check on this host."""
    with host.popen([NETCTL, "check", what, "-o", "json", *options], stdout=subprocess.PIPE, text=True) as process:
        document = json.loads(process.communicate(timeout=PATIENCE_S)[0])
    return process.returncode, [item["code"] for item in document["items"]]


def served(node):
    """Whether the node's rules know the Service."""
    with node.popen([NETCTL, "check", "net"], stdout=subprocess.PIPE, text=True) as process:
        said = process.communicate(timeout=PATIENCE_S)[0]
    return said if said.endswith("1 Services called)\n") else None


def test_a_healthy_lab_has_no_findings(cluster):
    for node in cluster.nodes:
        becomes(lambda node=node: served(node), "net: ok (1 peers, 1 pinged; 1 Services called)\n")
        assert checked(node, "host") == (0, [])
        assert node.run([NETCTL, "status"]).startswith(f"{node.name}: ok\n")
        assert node.run([NETCTL, "wait", "--for=ready", "--timeout", "30"]) == ""


OF_RULES = {
    "NN212": ("iptables -t nat -N KUBE-SERVICES", "iptables -t nat -X KUBE-SERVICES", ""),
    "NN312": ("nft -f -", "nft delete table ip early", TRANSLATES),
    "NN313": ("nft -f -", "nft delete table inet strict", FIREWALL % ("accept", "drop")),
}


@pytest.mark.parametrize("code", OF_RULES)
def test_rules_of_others_are_found_beside_ours(cluster, code):
    spoil, mend, stdin = OF_RULES[code]
    node = cluster.host("node-1")
    node.run(spoil.split(), stdin=stdin)
    try:
        assert checked(node, "host") == (1, [code])
    finally:
        node.run(mend.split())


@contextmanager
def running(host, program):
    """A program that says one line when it is there, and goes when its stdin is closed."""
    with host.popen([*BARE_PYTHON, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline()
        yield
        process.stdin.close()


def test_a_program_on_a_node_port_is_found(cluster):
    node = cluster.host("node-1")
    eventually(lambda: served(node))
    with running(node, LISTEN):
        assert checked(node, "host") == (1, ["NN211"])
    assert checked(node, "host") == (0, [])


def test_a_service_whose_endpoint_does_not_listen_is_found(cluster):
    pod = next(pod for _, pod in cluster.spec.all_pods)
    apply(cluster, service("deaf", "10.96.0.11"), endpoint_slice("deaf", cluster, [pod], port=9))
    node = cluster.host("node-1")
    becomes(lambda: checked(node, "net"), (1, ["NN210"]))
    said = node.run([NETCTL, "check", "net"], check=False)
    assert "  ! NN210 Service does not answer: 10.96.0.11:80/tcp" in said
    assert "      a connection from this node: refused\n      next: netctl explain 10.96.0.11:80/tcp\n" in said


def test_a_peer_whose_overlay_is_cut_is_found_at_once(cluster):
    node, peer = cluster.host("node-1"), cluster.host("node-2")
    peer.run(["nft", "-f", "-"], stdin=CUT)
    try:
        said = node.run([NETCTL, "check", "net"], check=False)
    finally:
        peer.run(["nft", "delete", "table", "ip", "cut"])
    assert "  ! NN104 peer does not answer: " in said
    assert "the node itself answers a ping" in " ".join(said.split())


def test_who_may_not_look_is_told_and_gets_3(cluster):
    node = cluster.host("node-1")
    argv = as_daemon([NETCTL, "check", "host"], capabilities=("net_bind_service",))
    with node.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (3, "")
    assert said.startswith("host: incomplete (")
    assert "  ? features of the kernel: trying them needs root\n" in said


def test_waiting_ends_in_time_and_says_what_is_missing(cluster):
    node = cluster.host("node-2")
    cluster.stop("node-2", "netproxy", Signals.SIGTERM)
    argv = [NETCTL, "wait", "--timeout", "0.3"]
    with node.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, said) == (4, "")
    assert errors.startswith("netctl: wait: not ready after 0.3 s: NN201 netproxy does not answer (")
    assert errors.count("\n") == 1
    cluster.start_daemons([("node-2", "netproxy")])
    assert node.run([NETCTL, "wait", "--timeout", "60"]) == ""


def test_the_lab_s_etcd_is_what_it_is(cluster):
    """Old, without TLS, open to everybody; and with sound leases, of which one is spoiled here."""
    address = cluster.etcd_option
    node = cluster.host("node-1")
    assert checked(node, "etcd", *address) == (1, ["NN402", "NN403", "NN404"])
    lease = next(value for value in cluster.leases().values())
    cluster.put("/coreos.com/network/subnets/10.244.0.0-24", json.dumps(lease))
    assert checked(node, "etcd", *address) == (1, ["NN402", "NN403", "NN404", "NN406"])
    cluster.host("etcd").run(
        ["etcdctl", *("--endpoints", address[1]), "del", "/coreos.com/network/subnets/10.244.0.0-24"]
    )


# A host without daemons


@pytest.fixture
def bare():
    """A namespace with an overlay device and no daemon."""
    with fresh_namespace():
        run("sysctl -qw net.ipv4.ip_forward=1")
        run("ip link add below type veth peer name beyond")
        run("ip link add flannel.1 mtu 1450 type vxlan id 1 local 10.0.0.1 dev below dstport 8472")
        yield


def codes_here():
    done = subprocess.run([NETCTL, "check", "host", "-o", "json"], capture_output=True, text=True, check=False)
    return [item["code"] for item in json.loads(done.stdout)["items"]]


def run(command, stdin=""):
    subprocess.run(command.split(), input=stdin, text=True, check=True)


OF_HOST = {
    "NN301": ("sysctl -qw net.ipv4.ip_forward=0", ""),
    "NN302": ("sysctl -qw net.ipv4.conf.below.rp_filter=1", ""),
    "NN303": ("sysctl -qw net.bridge.bridge-nf-call-iptables=0", ""),
    "NN304": ("sysctl -qw net.ipv4.conf.all.route_localnet=1", ""),
    "NN310": ("nft -f -", FIREWALLD),
    "NN311": ("iptables -N ufw-before-forward", ""),
    "NN313": ("iptables -P FORWARD DROP", ""),
    "NN314": ("nft -f -", FIREWALL % ("drop", "accept")),
    "NN321": ("ip link set below mtu 1400", ""),
}


@pytest.mark.usefixtures("bare")
def test_a_host_before_nodenet_is_fit_for_it():
    assert codes_here() == []


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("code", OF_HOST)
def test_a_fault_of_the_host_is_found(code):
    run(*OF_HOST[code])
    assert codes_here() == [code]


@pytest.mark.usefixtures("bare")
def test_both_variants_of_iptables_at_once_are_found():
    run("iptables-nft -A OUTPUT -j ACCEPT")
    assert codes_here() == []
    run("iptables-legacy -A OUTPUT -j ACCEPT")
    assert codes_here() == ["NN315"]


@pytest.mark.usefixtures("bare")
def test_another_overlay_in_our_place_is_found():
    run("ip link delete flannel.1")
    run("ip link add other type vxlan id 1 dstport 8472")
    assert codes_here() == ["NN317"]
    run("ip link delete other")
    with subprocess.Popen([*BARE_PYTHON, BIND], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()
        assert codes_here() == ["NN316"]
        process.stdin.close()


@pytest.mark.usefixtures("bare")
def test_wrong_checksums_are_found():
    subprocess.run([*BARE_PYTHON, WRONG_CHECKSUMS], check=True)
    assert codes_here() == ["NN320"]


@pytest.mark.usefixtures("bare")
def test_a_look_leaves_nothing_behind():
    before = state()
    assert codes_here() == []
    assert state() == before


def state():
    """All links and rules here."""
    shown = (["ip", "-o", "link"], ["nft", "list", "ruleset"])
    return [subprocess.run(argv, check=True, capture_output=True, text=True).stdout for argv in shown]
