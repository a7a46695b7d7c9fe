"""A daemon that dies and comes back moves no packet, and finds everything as it left it."""

import subprocess
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest
from deadline import PATIENCE_S, eventually
from settled import has_settled

from controlloop.client import get_json
from lab.workload import BARE_PYTHON, apply, call, endpoint_slice, service

STEADY = str(Path(__file__).with_name("steady.py"))
ADDRESS = "10.96.8.1"


@pytest.fixture(scope="module")
def served(cluster):
    objects = []
    for protocol in ("TCP", "UDP"):
        name = f"steady-{protocol.lower()}"
        objects.append(service(name, ADDRESS, protocol=protocol))
        objects.append(endpoint_slice(name, cluster, ["pod-2-1"], protocol=protocol))
    apply(cluster, *objects)
    caller = cluster.host("pod-1-1")
    eventually(lambda: all(call(caller, ADDRESS, 80, protocol=p)[0].startswith("pod-2-1") for p in ("tcp", "udp")))
    return cluster


class Traffic:
    def __init__(self, host):
        self.process = host.popen(
            [*BARE_PYTHON, STEADY, ADDRESS, "80"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "started\n"

    def stop(self):
        """What was sent and what came back."""
        words = self.process.communicate("stop\n", timeout=PATIENCE_S)[0].split()
        return {key: int(value) for key, _, value in (word.partition("=") for word in words[1:])}


@pytest.mark.flannel("41")
@pytest.mark.parametrize("number", [SIGKILL, SIGTERM], ids=["killed", "stopped"])
@pytest.mark.parametrize("program", ["netproxy", "netagent"])
@pytest.mark.parametrize("node", ["node-1", "node-2"], ids=["at-the-caller", "at-the-endpoint"])
def test_no_packet_is_lost_while_a_daemon_is_away_and_comes_back(served, program, node, number):
    traffic = Traffic(served.host("pod-1-1"))
    try:
        served.stop(node, program, number)
        assert call(served.host("pod-1-2"), ADDRESS, 80)[0].startswith("pod-2-1")
        served.start_daemons([(node, program)])
    finally:
        counts = traffic.stop()
    assert counts["sent"] > 20
    assert counts["received"] == counts["echoes"] == counts["sent"]


def kernel_state(host):
    """Everything the daemons program, with the numbers that betray a rewrite (handles, interface index)."""
    commands = (
        "nft -a list ruleset",
        "ip route show",
        "ip neigh show dev flannel.1 nud permanent",
        "bridge fdb show dev flannel.1",
        "ip -o link show flannel.1",
        "ip -o addr show flannel.1",
    )
    return {command: host.run(command.split()) for command in commands}


@pytest.mark.flannel("41")
@pytest.mark.parametrize("program", ["netproxy", "netagent"])
def test_a_restarted_daemon_rewrites_nothing(served, program):
    node = served.host("node-3")
    eventually(lambda: has_settled(node.run))
    before = without_counters(kernel_state(node))
    served.stop("node-3", program, SIGKILL)
    served.start_daemons([("node-3", program)])
    assert without_counters(kernel_state(node)) == before


def without_counters(state):
    """iptables-nft rules count packets, and traffic goes on."""
    return {
        command: " ".join(
            "N" if previous in {"packets", "bytes"} else word
            for previous, word in zip(["", *text.split()], text.split(), strict=False)
        )
        for command, text in state.items()
    }


@pytest.mark.parametrize("program", ["netproxy", "netagent"])
def test_sigterm_stops_a_daemon(served, program):
    process = served.process("node-3", program)
    served.stop("node-3", program, SIGTERM)
    eventually(lambda: not process.is_alive())
    assert "stopping" in served.log_of("node-3", program).read_text()
    served.start_daemons([("node-3", program)])


def test_while_etcd_is_away_services_go_on_and_what_is_changed_afterwards_arrives(served):
    caller, node = served.host("pod-1-1"), served.host("node-1")
    served.stop("etcd", "etcd", SIGKILL)
    try:
        eventually(lambda: status_of(node)["source"]["away"])
        assert status_of(node)["ready"]
        assert call(caller, ADDRESS, 80)[0].startswith("pod-2-1")
    finally:
        served.start_etcd()
    apply(served, endpoint_slice("steady-tcp", served, ["pod-3-1"]))
    eventually(lambda: call(caller, ADDRESS, 80)[0].startswith("pod-3-1"))
    eventually(lambda: not status_of(node)["source"]["away"])


def status_of(node):
    return get_json(node.run_dir / "nodenet" / "netproxy.sock", "/status")
