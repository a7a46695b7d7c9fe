"""Real agents on three nodes that take their subnets from an API server: real VXLAN, pods, packets."""

import json
import os
import sys
from pathlib import Path
from signal import SIGTERM

import pytest
from api_thread import URL, ServerThread
from apiserver import node
from deadline import becomes, eventually

from controlloop.client import UnreachableError, get_json
from lab.cluster import NETWORK_CONFIG, Cluster, up
from lab.host import as_daemon
from lab.topology import Spec
from lab.workload import call, ping_all, start_responders

P = "flannel.alpha.coreos.com/"
NET_CONF = "net-conf.json"
SUBNETS = {f"node-{number}": f"10.244.{number}.0/24" for number in (1, 2, 3)}


class OnKubernetes(Cluster):
    """A lab without etcd. Its third node is there, but nobody knows of it yet."""

    def build(self, _progress):
        self.lay_out()
        self.server = ServerThread(self.spec.namespace("etcd"))
        for name in self.spec.node_names:
            (self.host(name).run_dir / NET_CONF).write_text(json.dumps(NETWORK_CONFIG))
        for name in ("node-1", "node-2"):
            self.join(name)
            self.attach_pod(name, name.replace("node", "pod") + "-1")
        start_responders(self)

    def down(self):
        super().down()
        if server := self.__dict__.get("server"):
            server.end()

    def daemon_argv(self, node, program):
        url = f"--kube-api-url={URL}"
        flags = [url, "--kube-subnet-mgr", f"--net-config-path=/run/{NET_CONF}", f"--node-name={node}"]
        return as_daemon([str(Path(sys.executable).parent / program), *flags])

    def join(self, name):
        """The node's object, as its kubelet would make it, and its agent."""
        self.server.do(lambda api: api.put("nodes", node(name, SUBNETS[name])))
        self.start_daemons([(name, "netagent")])

    def status(self, name):
        try:
            return get_json(self.host(name).run_dir / "nodenet/netagent.sock", "/status")
        except UnreachableError:
            return {"ready": False}

    def pings(self, source, target):
        return self.host(source).succeeds(["ping", "-c1", "-W3", str(self.pod_address(target))])

    def routes(self, name):
        return self.host(name).run(["ip", "route", "show", "proto", "78"])

    def fdb(self, name):
        return self.host(name).run(["bridge", "fdb", "show", "dev", "flannel.1"])


@pytest.fixture(scope="module")
def lab():
    made = up(Spec(f"kube{os.getpid()}", nodes=3, pods_per_node=1), owned=True, kind=OnKubernetes)
    yield made
    made.down()


@pytest.fixture(scope="module")
def server(lab):
    return lab.server


def annotations(server, name):
    return server.do(lambda api: dict(api.get("nodes", name)["metadata"]["annotations"]))


def conditions(server, name):
    listed = server.do(lambda api: list(api.get("nodes", name)["status"]["conditions"]))
    return {each["type"]: (each["status"], each["reason"]) for each in listed}


@pytest.mark.flannel("21", "22")
def test_two_nodes_take_their_subnets_from_the_api_server_and_connect_their_pods(lab, server):
    eventually(lambda: lab.pings("pod-1-1", "pod-2-1"))
    assert call(lab.host("pod-2-1"), str(lab.pod_address("pod-1-1")), 8080)[0].startswith("pod-1-1")
    for name in ("node-1", "node-2"):
        text = (lab.host(name).run_dir / "flannel/subnet.env").read_text()
        assert f"FLANNEL_SUBNET={SUBNETS[name].replace('.0/', '.1/')}" in text
        written = annotations(server, name)
        assert written[f"{P}public-ip"] == str(lab.spec.attached[name].ip)
        assert written[f"{P}backend-type"] == "vxlan"
    assert SUBNETS["node-3"] not in lab.routes("node-1")


def test_the_nodes_say_that_their_network_is_up(server):
    for name in ("node-1", "node-2"):
        becomes(lambda name=name: conditions(server, name).get("NetworkUnavailable"), ("False", "FlannelIsUp"))
        assert conditions(server, name)["Ready"] == ("True", "KubeletReady")


def test_a_node_that_joins_is_connected_with_all_others(lab, server):
    lab.join("node-3")
    lab.attach_pod("node-3", "pod-3-1")
    for name in ("node-1", "node-2"):
        eventually(lambda name=name: lab.routes(name), that=lambda found: SUBNETS["node-3"] in found)
    assert all(all(answers.values()) for _, answers in ping_all(lab))


def test_annotations_that_somebody_changes_are_followed_until_their_node_puts_them_right(lab, server):
    before, mac = annotations(server, "node-3"), "02:00:00:00:00:77"
    lab.stop("node-3", "netagent", SIGTERM)
    data = json.dumps({"VNI": 1, "VtepMAC": mac})
    server.do(lambda api: api.annotate("node-3", **{f"{P}backend-data": data}))
    eventually(lambda: lab.fdb("node-1"), that=lambda found: mac in found)
    assert json.loads(before[f"{P}backend-data"])["VtepMAC"] not in lab.fdb("node-1")
    lab.start_daemons([("node-3", "netagent")])
    becomes(lambda: annotations(server, "node-3"), before)
    eventually(lambda: lab.pings("pod-1-1", "pod-3-1"))
    assert mac not in lab.fdb("node-1")


def test_annotations_that_make_no_sense_harm_nobody(lab, server):
    bad = node("bad", "10.244.250.0/24", annotations={f"{P}kube-subnet-manager": "true", f"{P}public-ip": "nowhere"})
    server.do(lambda api: api.put("nodes", bad))
    becomes(lambda: [each["name"] for each in lab.status("node-1")["skipped"]], ["10.244.250.0-24"])
    assert lab.pings("pod-1-1", "pod-2-1")
    server.do(lambda api: api.delete("nodes", "bad"))
    eventually(lambda: lab.status("node-1")["ready"] and not lab.status("node-1")["skipped"])


@pytest.mark.flannel("33")
def test_an_api_server_that_restarts_disturbs_no_packet_and_what_changed_meanwhile_arrives(lab, server):
    with server.away():
        assert lab.pings("pod-1-1", "pod-3-1")
        server.do(lambda api: api.delete("nodes", "node-3"))
        assert SUBNETS["node-3"] in lab.routes("node-1")
    eventually(lambda: lab.routes("node-1"), that=lambda found: SUBNETS["node-3"] not in found)
    assert lab.pings("pod-1-1", "pod-2-1")
    # Its agent is told that the Node is gone, and takes part again as soon as it is there.
    server.do(lambda api: api.put("nodes", node("node-3", SUBNETS["node-3"])))
    eventually(lambda: lab.pings("pod-1-1", "pod-3-1"))
    eventually(lambda: all(lab.status(name)["ready"] for name in lab.spec.node_names))
    becomes(lambda: conditions(server, "node-3").get("NetworkUnavailable"), ("False", "FlannelIsUp"))


def test_watches_that_are_cut_are_taken_up_where_they_were(lab, server):
    lists = server.do(lambda api: len(api.requests("list")))
    server.do(lambda api: api.drop_connections())
    server.do(lambda api: api.delete("nodes", "node-2"))
    eventually(lambda: lab.routes("node-1"), that=lambda found: SUBNETS["node-2"] not in found)
    server.do(lambda api: api.put("nodes", node("node-2", SUBNETS["node-2"])))
    eventually(lambda: lab.pings("pod-1-1", "pod-2-1"))
    assert server.do(lambda api: len(api.requests("list"))) == lists


@pytest.mark.flannel("27")
def test_agents_restarted_in_turn_keep_their_subnets_and_write_no_annotation(lab, server):
    before, writes = {name: annotations(server, name) for name in SUBNETS}, annotating(server)
    for name in lab.spec.node_names:
        lab.stop(name, "netagent", SIGTERM)
        lab.start_daemons([(name, "netagent")])
        assert all(all(answers.values()) for _, answers in ping_all(lab))
    assert {name: annotations(server, name) for name in SUBNETS} == before
    assert annotating(server) == writes


def annotating(server):
    """How many writes of annotations there were."""
    return server.do(lambda api: sum("metadata" in seen.body for seen in api.requests("patch")))
