"""`netctl events` on a lab: each change with its cause, in both modes; followed until it is ended."""

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from deadline import PATIENCE_S, eventually
from schemas import validated
from whole_lab import bring_up

from lab.topology import ETCD_URL
from lab.workload import apply, delete, endpoint_slice, service

NETCTL = str(Path(sys.executable).with_name("netctl"))
WEB, ADDRESS = "service default/web", "10.96.0.10"
LEASES = "/coreos.com/network/subnets"


in_one_mode = pytest.mark.parametrize("cluster", ["nftables"], indirect=True, scope="module")
"""What does not depend on it."""


@pytest.fixture(scope="module", params=["nftables", "iptables"])
def cluster(request):
    made = bring_up(nodes=2, pods_per_node=1, mode=request.param)
    yield made
    made.down()


@pytest.fixture
def node(cluster):
    return cluster.host("node-1")


def serve(cluster, *pods):
    apply(cluster, service("web", ADDRESS), endpoint_slice("web", cluster, pods))


def heard(node, *arguments):
    document = validated(json.loads(node.run([NETCTL, "events", "-o", "json", *arguments])))
    return document["items"]


class Since:
    """What happens from now on."""

    def __init__(self, node):
        self._node = node
        self._seen = {(each["daemon"], each["sequence"]) for each in heard(node)}

    def events(self):
        return [each for each in heard(self._node) if (each["daemon"], each["sequence"]) not in self._seen]

    def tells(self, what, action, **more):
        """The one event that is so; its facts."""

        def found():
            return [
                each
                for each in self.events()
                if what in each["object"]
                and each["action"] == action
                and all(each[name] == value for name, value in more.items())
            ]

        eventually(found)
        (one,) = found()
        return one


def endpoint(cluster, pod):
    return f"{cluster.pod_address(pod)}:8080"


def test_a_start_says_little(cluster):
    for node in cluster.nodes:
        began = [each for each in heard(node) if each["trigger"] == "startup"]
        assert {each["object"].partition(" ")[0] for each in began} == {"netproxy", "overlay", "lease"}


def test_a_service_and_its_endpoints(cluster, node):
    since = Since(node)
    serve(cluster, "pod-1-1")
    added = since.tells(WEB, "added", daemon="netproxy")
    assert added["trigger"] in {"service", "slice"}
    told = (f"{ADDRESS}:80/tcp random", endpoint(cluster, "pod-1-1"))
    eventually(lambda: all(fact in str(since.events()) for fact in told))
    since = Since(node)
    serve(cluster, "pod-2-1")
    moved = since.tells(WEB, "changed", trigger="slice")
    assert (moved["old"], moved["new"]) == ([endpoint(cluster, "pod-1-1")], [endpoint(cluster, "pod-2-1")])
    since = Since(node)
    delete(cluster, service("web", ADDRESS), endpoint_slice("web", cluster, ["pod-2-1"]))
    eventually(lambda: any(each["action"] == "removed" and each["object"] == WEB for each in since.events()))


@in_one_mode
def test_a_service_that_cannot_be_read_is_told_with_the_reason(cluster, node):
    since = Since(node)
    broken = service("broken", "10.96.0.66")
    broken["spec"]["ports"][0]["protocol"] = "ICMP"
    cluster.put("/nodenet/services/default/broken", json.dumps(broken))
    told = since.tells("default/broken", "skipped")
    assert "ICMP" in told["new"][0]
    delete(cluster, service("broken", "10.96.0.66"))
    since.tells("default/broken", "no longer skipped")


@in_one_mode
def test_a_repaired_route_names_who_removed_it(cluster, node):
    since = Since(node)
    route = next(line for line in node.run(["ip", "route"]).splitlines() if "flannel.1" in line).split()[0]
    node.run(["ip", "route", "delete", route])
    repaired = since.tells(f"route {route}", "repaired", trigger="drift", daemon="netagent")
    assert (repaired["old"], len(repaired["new"])) == ([], 1)
    assert repaired["by"].startswith("ip (process ") or repaired["by"].startswith("process ")


def test_repaired_rules(cluster, node):
    serve(cluster, "pod-1-1")
    eventually(lambda: "service/default/web" in node.run([NETCTL, "events", "-o", "name"]))
    since = Since(node)
    if cluster.spec.mode == "nftables":
        eventually(lambda: ADDRESS in node.run(["nft", "list", "map", "ip", "netproxy", "services"]))
        node.run(["nft", "delete", "element", "ip", "netproxy", "services", f"{{ {ADDRESS} . tcp . 80 }}"])
        repaired = since.tells("element services", "repaired", trigger="drift", daemon="netproxy")
        assert (repaired["object"], repaired["by"]) == (f"element services {ADDRESS} . tcp . 80 of nftables-ip", "nft")
    else:
        chain = eventually(lambda: chain_of(node))
        node.run(["iptables", "-w", "-t", "nat", "-F", chain])
        repaired = since.tells(f"chain nat {chain}", "repaired", trigger="drift", daemon="netproxy")
        assert any("DNAT" in rule for rule in repaired["new"])


def chain_of(node):
    lines = node.run(["iptables-save", "-t", "nat"]).splitlines()
    return next((line.split()[1] for line in lines if "DNAT" in line and "8080" in line), None)


def test_a_flushed_ruleset_is_one_event_and_not_one_for_each_rule(cluster, node):
    serve(cluster, "pod-1-1")
    since = Since(node)
    node.run(["nft", "flush", "ruleset"])

    def rules():
        return [each for each in since.events() if each["action"] == "repaired" and "objects of" in each["object"]]

    assert len(eventually(rules)) <= 4, "for each family and table"
    assert len(since.events()) < 15


@in_one_mode
def test_a_peer_that_comes_moves_and_goes(cluster, node):
    key, since = f"{LEASES}/10.244.250.0-24", Since(node)
    lease = {
        "PublicIP": "10.10.0.77",
        "BackendType": "vxlan",
        "BackendData": {"VNI": 1, "VtepMAC": "02:00:00:00:00:77"},
    }
    cluster.put(key, json.dumps(lease))
    added = since.tells("peer 10.244.250.0-24", "added", trigger="lease")
    assert "public ip 10.10.0.77" in added["new"]
    cluster.put(key, json.dumps({**lease, "PublicIP": "10.10.0.78"}))
    moved = since.tells("peer 10.244.250.0-24", "changed", trigger="lease")
    assert (moved["old"], moved["new"]) == (["public ip 10.10.0.77"], ["public ip 10.10.0.78"])
    cluster.put(key, "garbage")
    since.tells("object 10.244.250.0-24", "skipped")
    cluster.host("etcd").run(["etcdctl", "--endpoints", ETCD_URL, "del", key])
    since.tells("peer 10.244.250.0-24", "removed")


@contextmanager
def following(node, *arguments):
    argv = [NETCTL, "events", "-f", *arguments]
    with node.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@in_one_mode
def test_following_goes_on_behind_a_restart_of_the_daemon(cluster, node):
    serve(cluster, "pod-1-1")
    with following(node, "-o", "json", "default/web") as process:
        eventually(lambda: WEB in process.stdout.readline())
        cluster.stop("node-1", "netproxy", signal.SIGKILL)
        serve(cluster, "pod-2-1")
        cluster.start_daemons([("node-1", "netproxy")])
        started = time.time()
        eventually(lambda: Since(node))
        serve(cluster, "pod-1-1")
        while (event := validated(json.loads(process.stdout.readline())))["at"] < started:
            pass
        assert event["object"] == WEB
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "netproxy does not answer" in err
    assert "answers again" in err
    assert "Traceback" not in err


@in_one_mode
def test_a_reader_that_goes_ends_it_without_a_word(node):
    script = f"{NETCTL} events -f | head -1; echo ${{PIPESTATUS[0]}}"
    assert node.run(["bash", "-c", script], timeout_s=PATIENCE_S).splitlines()[-1] == "0"


@in_one_mode
def test_a_narrow_terminal_cuts_with_an_ellipsis(node):
    script = f"stty cols 40; {NETCTL} events"
    shown = node.run(["script", "-qec", script, "/dev/null"]).replace("\r", "").splitlines()
    assert max(map(len, shown)) <= 40
    assert any(line.endswith("...") for line in shown)


def test_a_record_cannot_be_followed(node, tmp_path):
    done = subprocess.run(
        [NETCTL, "events", "-f", "--from", str(tmp_path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
