"""Connections that are older than a change: who keeps them, who is led elsewhere, who is reset."""

import itertools
import subprocess
from contextlib import closing, suppress
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest
from deadline import PATIENCE_S, becomes, eventually
from proxy_lab import LOOK_AGAIN_S, NODE

from lab.workload import BARE_PYTHON, RESPONDER

STEADY = str(Path(__file__).with_name("steady.py"))
NODE_ADDRESS = "10.10.0.1"
numbers = itertools.count(1)


class Target:
    """A UDP Service that is called in one of three ways by a client that keeps its port."""

    def __init__(self, lab, way):
        number = next(numbers)
        self.lab, self.name, self.port = lab, f"udp-{number}", 80
        self.cluster_ip = self.address = f"10.96.20.{number}"
        self.spec, self.caller = {}, "pod-1-3"
        if way == "node port":
            self.caller, self.address, self.port = "client", NODE_ADDRESS, 30_200 + number
            ports = [{"name": "main", "protocol": "UDP", "port": 80, "nodePort": self.port}]
            self.spec = {"type": "NodePort", "ports": ports}
        elif way == "load balancer":
            self.caller, self.address = "client", f"10.96.21.{number}"
            self.spec = {"type": "LoadBalancer"}
            self.status = {"loadBalancer": {"ingress": [{"ip": self.address}]}}

    def serve(self, pods):
        status = getattr(self, "status", None)
        self.lab.serve(self.name, self.cluster_ip, pods, protocol="UDP", status=status, **self.spec)

    def back(self, pods, **options):
        self.lab.back(self.name, pods, protocol="UDP", **options)

    def datagrams(self):
        return self.lab.datagrams(self.caller, self.address, self.port)

    def answers_new(self):
        """Who answers a client that was not there before."""
        with self.datagrams() as ask:
            return ask(LOOK_AGAIN_S)


@pytest.fixture(params=["cluster IP", "node port"])
def target(proxy, request):
    made = Target(proxy, request.param)
    yield made
    with suppress(KeyError):
        proxy.take_away(made.name)


def from_now_on(ask, answer):
    becomes(lambda: ask(LOOK_AGAIN_S), answer)
    assert [ask() for _ in range(3)] == [answer] * 3


@pytest.mark.kube_proxy("6.2-29", "6.2-46")
@pytest.mark.parametrize("target", ["cluster IP", "node port", "load balancer"], indirect=True)
def test_a_client_that_keeps_its_port_follows_the_endpoints_as_they_change(target):
    target.serve(["pod-1-1"])
    with target.datagrams() as ask:
        from_now_on(ask, "pod-1-1")
        for pod in ("pod-1-2", "pod-1-1"):
            target.back([pod])
            from_now_on(ask, pod)


@pytest.mark.kube_proxy("6.2-30")
def test_who_called_while_nobody_served_is_heard_as_soon_as_somebody_does(target):
    target.serve([])
    with target.datagrams() as ask:
        from_now_on(ask, "refused")
        target.back(["pod-1-1"])
        from_now_on(ask, "pod-1-1")


@pytest.mark.kube_proxy("6.1-39")
def test_without_endpoints_an_old_flow_is_refused_like_a_new_one(target):
    target.serve(["pod-1-1"])
    with target.datagrams() as ask:
        from_now_on(ask, "pod-1-1")
        target.back([])
        from_now_on(ask, "refused")


def test_a_service_that_is_deleted_has_no_flows_either(target):
    target.serve(["pod-1-1"])
    with target.datagrams() as ask:
        from_now_on(ask, "pod-1-1")
        target.lab.take_away(target.name)
        eventually(lambda: ask(LOOK_AGAIN_S), that=lambda said: not said.startswith("pod"))


@pytest.mark.kube_proxy("6.2-32")
def test_another_target_port_is_used_by_old_flows_too(target):
    lab = target.lab
    if "second" not in {process.program for process in lab.processes}:
        pod = lab.host("pod-1-1")
        lab.start(pod, "second", [*BARE_PYTHON, RESPONDER, "second", "8081"])
        eventually(lambda: "listening" in lab.log_of("pod-1-1", "second").read_text())
    target.serve(["pod-1-1"])
    with target.datagrams() as ask:
        from_now_on(ask, "pod-1-1")
        target.back(["pod-1-1"], port=8081)
        from_now_on(ask, "second")


def test_an_endpoint_that_terminates_keeps_its_flows_until_it_is_gone(target):
    target.serve(["pod-1-1"])
    with target.datagrams() as ask:
        from_now_on(ask, "pod-1-1")
        leaving = {"pod-1-1": {"ready": False, "serving": True, "terminating": True}}
        target.back(["pod-1-1", "pod-1-2"], by_pod=leaving)
        becomes(target.answers_new, "pod-1-2")
        assert ask() == "pod-1-1"
        target.back(["pod-1-2"])
        from_now_on(ask, "pod-1-2")


def test_flows_forgotten_are_counted(proxy):
    before = proxy.status()["flows_forgotten"]
    target = Target(proxy, "cluster IP")
    target.serve(["pod-1-1"])
    with target.datagrams() as ask:
        from_now_on(ask, "pod-1-1")
        target.back(["pod-1-2"])
        from_now_on(ask, "pod-1-2")
    assert proxy.status()["flows_forgotten"] > before
    counted = proxy.metrics()["kubeproxy_conntrack_reconciler_deleted_entries_total"]
    assert counted == proxy.status()["flows_forgotten"]
    proxy.take_away(target.name)


# TCP


def echoes(connection):
    try:
        connection.sendall(b"still there?\n")
        return connection.recv(256) == b"still there?\n"
    except ConnectionError:
        return False


@pytest.fixture
def held(proxy):
    """Makes a Service, and a connection through it to its only pod."""

    def hold(**options):
        number = next(numbers)
        name, address = f"tcp-{number}", f"10.96.22.{number}"
        proxy.serve(name, address, ["pod-1-1"], **options)
        proxy.answers(address, ["pod-1-1"])
        connection = proxy.connection("pod-1-3", address)
        assert connection.recv(256).startswith(b"pod-1-1 ")
        made.append((name, connection))
        return name, address, connection

    made = []
    yield hold
    for name, connection in made:
        connection.close()
        proxy.take_away(name)


@pytest.mark.kube_proxy("6.2-54")
def test_a_terminating_endpoint_gets_no_new_connection_and_keeps_the_old_ones(proxy, held):
    name, address, connection = held()
    leaving = {"pod-1-1": {"ready": False, "serving": True, "terminating": True}}
    proxy.back(name, ["pod-1-1", "pod-1-2"], by_pod=leaving)
    proxy.answers(address, ["pod-1-2"])
    assert echoes(connection)
    proxy.back(name, ["pod-1-2"])
    becomes(lambda: proxy.status()["pending"], 0)
    assert echoes(connection), "without a drain time nobody ends what works"


def test_connections_to_an_endpoint_that_is_gone_are_reset_when_the_drain_time_is_over(proxy, held):
    name, address, connection = held(annotations={"nodenet.io/drain-timeout": "1s"})
    proxy.back(name, ["pod-1-2"])
    proxy.answers(address, ["pod-1-2"])
    with closing(proxy.connection("pod-1-3", address)) as new:
        assert new.recv(256).startswith(b"pod-1-2 ")
        eventually(lambda: not echoes(connection))
        assert echoes(new)


def test_an_endpoint_that_is_back_before_the_drain_time_keeps_its_connections(proxy, held):
    name, address, connection = held(annotations={"nodenet.io/drain-timeout": "3s"})
    other_name, _, other = held(annotations={"nodenet.io/drain-timeout": "3s"})
    for each in (name, other_name):
        proxy.back(each, ["pod-1-2"])
    proxy.answers(address, ["pod-1-2"])
    proxy.back(name, ["pod-1-1"])
    proxy.answers(address, ["pod-1-1"])
    # The other went later, so this one's time is over as well.
    eventually(lambda: not echoes(other))
    assert echoes(connection)


@pytest.mark.kube_proxy("6.2-8")
@pytest.mark.parametrize("number", [SIGKILL, SIGTERM], ids=["killed", "stopped"])
def test_no_connection_is_lost_while_the_daemon_is_away_and_comes_back(proxy, number):
    address = "10.96.24.1"
    for protocol in ("TCP", "UDP"):
        proxy.serve(f"steady-{protocol.lower()}", address, ["pod-1-1"], protocol=protocol)
    proxy.answers(address, ["pod-1-1"])
    with proxy.datagrams("pod-1-2", address) as ask:
        from_now_on(ask, "pod-1-1")
    argv = [*BARE_PYTHON, STEADY, address, "80"]
    traffic = proxy.host("pod-1-3").popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert traffic.stdout.readline() == "started\n"
        proxy.stop(NODE, "netproxy", number)
        assert {proxy.call("pod-1-2", address) for _ in range(20)} == {"pod-1-1"}
        proxy.start_daemons([(NODE, "netproxy")])
        assert {proxy.call("pod-1-2", address) for _ in range(20)} == {"pod-1-1"}
    finally:
        words = traffic.communicate("stop\n", timeout=PATIENCE_S)[0].split()
    counts = {key: int(value) for key, _, value in (word.partition("=") for word in words[1:])}
    assert counts["sent"] > 20
    assert counts["received"] == counts["echoes"] == counts["sent"]
