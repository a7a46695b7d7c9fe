"""Two overlays on two nodes, so four agents: each keeps to what is its own, at work and when it goes."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from deadline import PATIENCE_S, becomes, eventually
from node_pair import V4, Pair

from controlloop.client import UnreachableError, get_json
from lab.etcd import etcd_argv, health_argv
from netagent.subnet_file import read_subnets

ETCD = "http://192.0.2.1:2379"
NETAGENT = str(Path(sys.executable).parent / "netagent")
INTERVAL_S = 0.002

VXLAN = {"Type": "vxlan"}


@dataclass(frozen=True, eq=False)
class Side:
    """One of the overlays."""

    instance: int
    network: str
    config: dict

    @property
    def prefix(self):
        return f"/overlay{self.instance}"

    @property
    def tag(self):
        return str(self.instance) if self.instance else ""

    @property
    def protocol(self):
        return 78 - self.instance

    @property
    def device(self):
        backend = self.config["Backend"]
        return f"flannel.{backend.get('VNI', 1)}" if backend["Type"] == "vxlan" else "eth0"

    @property
    def flags(self):
        number = ["--instance", self.tag] if self.instance else []
        return ["--etcd-prefix", self.prefix, "--subnet-file", f"/run/flannel/{self.instance}.env", *number]


def side(instance, network, backend, *, nftables):
    return Side(instance, network, {"Network": network, "Backend": backend, "EnableNFTables": nftables})


SIDES = {
    "vxlan and host-gw, nftables": (
        side(0, "10.11.0.0/16", VXLAN, nftables=True),
        side(2, "10.12.0.0/16", {"Type": "host-gw"}, nftables=True),
    ),
    "host-gw and vxlan, iptables": (
        side(0, "10.11.0.0/16", {"Type": "host-gw"}, nftables=False),
        side(1, "10.12.0.0/16", VXLAN, nftables=False),
    ),
    "vxlan twice, nftables and iptables": (
        side(3, "10.11.0.0/16", VXLAN, nftables=True),
        side(7, "10.12.0.0/16", {"Type": "vxlan", "VNI": 2}, nftables=False),
    ),
    "vxlan twice, iptables": (
        side(0, "10.11.0.0/16", VXLAN, nftables=False),
        side(2, "10.12.0.0/16", {"Type": "vxlan", "VNI": 2}, nftables=False),
    ),
}


class Overlays:
    """The agents of both sides on both nodes."""

    def __init__(self, pair, sides):
        self.pair = pair
        self.sides = sides
        self._running = {}

    def start(self, side, number):
        host = self.pair.hosts[number]
        argv = [NETAGENT, "--etcd-endpoints", ETCD, "--node-name", host.name, "--iface", "eth0", "--ip-masq"]
        with (host.folder / f"netagent{side.tag}.log").open("ab") as log:
            self._running[side, number] = host.popen([*argv, *side.flags], stdout=log, stderr=subprocess.STDOUT)

    def stop(self, side, number, how=signal.SIGTERM):
        process = self._running.pop((side, number))
        process.send_signal(how)
        process.wait(PATIENCE_S)

    def stop_all(self):
        for key in list(self._running):
            self.stop(*key)

    def status(self, side, number=1):
        return get_json(self.pair.hosts[number].run_dir / "nodenet" / f"netagent{side.tag}.sock", "/status")

    def is_ready(self, side, number=1):
        try:
            status = self.status(side, number)
        except UnreachableError:
            return False
        return status["ready"] and status["peers"] == 1

    def pod(self, side, number):
        """The first address of the node's subnet, where its bridge would be; made there if need be."""
        host = self.pair.hosts[number]
        address = read_subnets(host.run_dir / "flannel" / f"{side.instance}.env")[V4][1]
        host.run(["ip", "addr", "replace", f"{address}/32", "dev", "lo"])
        return str(address)

    def ping(self, side):
        argv = ["ping", "-c1", "-W1", "-I", self.pod(side, 1), self.pod(side, 2)]
        return self.pair.hosts[1].succeeds(argv)

    def kept(self, side):
        """What one side has in node 1's kernel."""
        routes = self.pair.shows(f"ip route show proto {side.protocol}").splitlines()
        tables = self.pair.shows("nft list tables").splitlines()
        chains = self.pair.shows("iptables-save").splitlines()
        device = []
        if side.device != "eth0" and side.device in self.pair.devices():
            link = json.loads(self.pair.shows(f"ip -j -d link show {side.device}"))[0]
            device = [link["ifalias"], link["ifindex"], link["address"]]
            for command in ("ip -4 neigh show nud permanent dev", "bridge fdb show dev", "ip -4 -br address show dev"):
                device.append(self.pair.shows(f"{command} {side.device}"))
        return {
            "routes": sorted(routes),
            "tables": [line for line in tables if line.split()[2] == f"netagent{side.tag}"],
            "chains": [line for line in chains if f"NETAGENT{side.tag}-" in line],
            "device": device,
        }


@pytest.fixture(scope="module", params=SIDES)
def overlays(request, tmp_path_factory):
    """For all tests in their order: the first finds it untouched, the last takes it down."""
    folder = tmp_path_factory.mktemp("overlays")
    pair = Pair(folder)
    made = Overlays(pair, SIDES[request.param])
    try:
        pair.up()
        with (folder / "etcd.log").open("wb") as log:
            argv = etcd_argv(folder, client_url=ETCD, peer_url="http://127.0.0.1:2380")
            with pair.hosts[1].popen(argv, stdout=log, stderr=log) as etcd:
                try:
                    bring_up(made)
                    yield made
                finally:
                    made.stop_all()
                    etcd.terminate()
    finally:
        pair.down()


def bring_up(overlays):
    store = overlays.pair.hosts[1]
    eventually(lambda: store.succeeds(health_argv(ETCD)))
    for side in overlays.sides:
        store.run(["etcdctl", "--endpoints", ETCD, "put", f"{side.prefix}/config", json.dumps(side.config)])
        for number in overlays.pair.hosts:
            overlays.start(side, number)
    for side in overlays.sides:
        for number in overlays.pair.hosts:
            eventually(lambda side=side, number=number: overlays.is_ready(side, number))
        eventually(lambda side=side: overlays.ping(side))


class Traffic:
    """Pings through an overlay while something happens to the other one."""

    def __init__(self, overlays, side):
        host = overlays.pair.hosts[1]
        self._log = host.folder / "ping.log"
        argv = ["ping", "-i", str(INTERVAL_S), "-W1", "-I", overlays.pod(side, 1), overlays.pod(side, 2)]
        with self._log.open("wb") as log:
            # In a pipe that nobody reads it would stand still after a while.
            self._process = host.popen(["stdbuf", "-oL", *argv], stdout=log)

    def __enter__(self):
        eventually(self._answered)
        return self

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGINT)
        self._process.wait(PATIENCE_S)
        answered = self._answered()
        # The last ones may still be on their way.
        assert answered == list(range(1, len(answered) + 1))
        assert len(answered) > 10

    def _answered(self):
        """The numbers of pings that were answered."""
        return [int(number) for number in re.findall(r"icmp_seq=(\d+) ttl=.* ms\n", self._log.read_text())]


@pytest.mark.flannel("20")
def test_each_goes_its_own_way(overlays):
    for side in overlays.sides:
        route = json.loads(overlays.pair.shows(f"ip -j route get {overlays.pod(side, 2)}"))[0]
        assert route["dev"] == side.device
        kept = overlays.kept(side)
        assert len(kept["routes"]) == 1
        assert kept["device"] or side.device == "eth0"
        assert overlays.status(side)["repairs"] == {}


def refusal(overlays, *flags):
    with overlays.pair.hosts[1].popen([NETAGENT, *flags], stderr=subprocess.PIPE, text=True) as agent:
        _, said = agent.communicate(timeout=PATIENCE_S)
    assert agent.returncode == 2
    return said.strip()


def test_a_second_agent_of_one_number_is_told_what_it_needs(overlays):
    taken = overlays.sides[0]
    assert refusal(overlays, *taken.flags) == (
        f"netagent: /run/nodenet/netagent{taken.tag}.lock: another netagent{taken.tag} runs here; "
        "one for another overlay needs an --instance of its own"
    )
    assert refusal(overlays, "--instance", "4") == "netagent: --instance 4: needs a --subnet-file of its own"
    assert refusal(overlays, "--instance", "8").startswith("netagent: --instance 8: want a whole number from 0 to 7")


def break_everything(overlays, side):
    overlays.pair.shows(f"ip route flush proto {side.protocol}")
    if side.device != "eth0":
        overlays.pair.shows(f"ip link del {side.device}")
    for table in overlays.kept(side)["tables"]:
        overlays.pair.shows(f"nft delete {table}")


@pytest.mark.flannel("20")
def test_what_is_broken_in_one_is_mended_and_the_other_is_left_alone(overlays):
    for broken, other in (overlays.sides, overlays.sides[::-1]):
        before, others = overlays.kept(broken)["routes"], overlays.kept(other)
        repairs = overlays.status(other)["repairs"]
        with Traffic(overlays, other):
            break_everything(overlays, broken)
            becomes(lambda broken=broken: overlays.kept(broken)["routes"], before)
            eventually(lambda broken=broken: overlays.ping(broken))
            eventually(lambda broken=broken: overlays.is_ready(broken))
        assert overlays.kept(other) == others
        assert overlays.status(other)["repairs"] == repairs


@pytest.mark.flannel("20")
def test_a_restart_and_a_cleanup_of_one_leave_the_other_alone(overlays):
    goes, stays = overlays.sides
    others = overlays.kept(stays)
    with Traffic(overlays, stays):
        before = overlays.kept(goes)
        overlays.stop(goes, 1, signal.SIGKILL)
        overlays.start(goes, 1)
        eventually(lambda: overlays.is_ready(goes))
        assert overlays.kept(goes) == before
        overlays.stop(goes, 1)
        overlays.pair.hosts[1].run([NETAGENT, "--cleanup", *goes.flags])
    assert overlays.kept(goes) == {"routes": [], "tables": [], "chains": [], "device": []}
    assert overlays.kept(stays) == others
    overlays.stop(stays, 1)
    overlays.pair.hosts[1].run([NETAGENT, "--cleanup", *stays.flags])
    assert overlays.kept(stays) == {"routes": [], "tables": [], "chains": [], "device": []}
    assert overlays.pair.devices() == set()
