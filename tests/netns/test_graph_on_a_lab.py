"""`netctl graph` on a lab: what it draws is what is there, seen from one node, from all, and from bundles."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from browser import browser
from deadline import eventually
from schemas import validated

from controlloop.client import get_json
from lab.wiring import ip
from lab.workload import apply, delete, endpoint_slice, service
from netctl.graph.figures.paths import number

NETCTL = str(Path(sys.executable).with_name("netctl"))
ADDRESS = "10.96.0.40"
WAIT_S = 120.0
"""Probes ask each peer every 10 s, and three times before they call it lost."""


def netctl(*arguments):
    return subprocess.run([NETCTL, *arguments], capture_output=True, text=True, check=False, timeout=WAIT_S)


def lab_graph(cluster, *arguments):
    return netctl("lab", "graph", "--name", cluster.spec.name, *arguments)


def document(done):
    assert done.returncode in (0, 1), done
    return validated(json.loads(done.stdout))


@pytest.fixture
def web(cluster):
    """A Service with a pod of each node behind it."""
    pods = [cluster.spec.pod_names(node)[0] for node in cluster.spec.node_names]
    objects = (service("drawn", ADDRESS), endpoint_slice("drawn", cluster, pods))
    apply(cluster, *objects)
    yield pods
    delete(cluster, *objects)


def quiet(cluster):
    """The whole lab, when every path was measured and every node has the Service."""

    def asked():
        found = document(lab_graph(cluster, "-o", "json"))
        whole = [port for port in found["services"] if not port["only_at"] and len(port["endpoints"]) == 3]
        (overlay,) = found["overlays"]
        return found if whole and all(path["rtt_ms"] for path in overlay["paths"]) else None

    return eventually(asked, WAIT_S)


def test_the_whole_lab_is_what_etcd_and_the_agents_say(cluster, web):
    found = quiet(cluster)
    (overlay,) = found["overlays"]
    leases = cluster.leases()
    attached = {name: str(address.ip) for name, address in cluster.spec.attached.items()}
    nodes = {node["id"]: (node["name"], node["public_ips"], node["health"]) for node in overlay["nodes"]}
    names = {
        lease["PublicIP"]: name
        for name, address in attached.items()
        for lease in leases.values()
        if address == lease["PublicIP"]
    }
    assert nodes == {key: (names[lease["PublicIP"]], [lease["PublicIP"]], "ok") for key, lease in leases.items()}
    assert overlay["networks"][0]["network"] == "10.244.0.0/16"
    assert {(path["from"], path["to"]) for path in overlay["paths"]} == {
        (one, other) for one in leases for other in leases if one != other
    }
    assert found["counts"]["nodes"] == 3


def test_endpoints_are_the_pods_on_their_nodes_with_equal_shares(cluster, web):
    found = quiet(cluster)
    (port,) = found["services"]
    names = {node["id"]: node["name"] for node in found["overlays"][0]["nodes"]}
    assert (port["name"], port["addresses"]) == ("default/drawn:main", [f"{ADDRESS}:80"])
    node_of = {pod: node for node, pod in cluster.spec.all_pods}
    assert {(each["address"], names[each["node"]]) for each in port["endpoints"]} == {
        (f"{cluster.pod_address(pod)}:8080", node_of[pod]) for pod in web
    }
    assert sum(each["share"] for each in port["endpoints"]) == pytest.approx(1, abs=1e-5)


def test_a_browser_shows_the_numbers_of_the_document(cluster, web, tmp_path):
    quiet(cluster)
    page = tmp_path / "lab.html"
    assert lab_graph(cluster, "--output-file", str(page)).returncode == 0
    with browser() as shown:
        shown.open(page, "#filter=drawn")
        drawn = json.loads(shown.evaluate("document.getElementById('document').textContent"))
        times = [path["rtt_ms"] for path in validated(drawn)["overlays"][0]["paths"]]
        assert sorted(shown.texts("#round-trips g text.in")) == sorted(map(number, times))
        (row,) = shown.texts("#services tbody tr")
        assert f"{ADDRESS}:80" in row
        assert all(f"{cluster.pod_address(pod)}:8080 · 33.3%" in row for pod in web)
        assert (shown.console, set(shown.requests) - {"about:blank"}) == ([], {page.as_uri()})


def test_one_node_draws_the_others_by_their_addresses(cluster):
    quiet_peers = get_json(cluster.host("node-1").run_dir / "nodenet" / "netagent.sock", "/peers")["items"]
    found = validated(json.loads(cluster.host("node-1").run(["netctl", "graph", "-o", "json"], check=False)))
    (overlay,) = found["overlays"]
    assert sorted(node["name"] for node in overlay["nodes"]) == ["10.10.0.2", "10.10.0.3", "node-1"]
    assert {path["to"] for path in overlay["paths"]} == {peer["key"] for peer in quiet_peers}
    assert found["asked"] == [{"name": "node-1", "silent": []}]


def test_bundles_of_several_nodes_are_drawn_together(cluster, web, tmp_path):
    """Times and ages apart, which go on, a bundle draws what the nodes drew."""
    quiet(cluster)
    options = []
    for node in cluster.nodes:
        bundle = tmp_path / f"{node.name}.tar.gz"
        node.run(["netctl", "bundle", str(bundle)])
        options += ["--from", str(bundle)]
    live, kept = quiet(cluster), document(netctl("graph", "-o", "json", *options))
    for found in live, kept:
        del found["taken_at"]
        for path in found["overlays"][0]["paths"]:
            del path["rtt_ms"]
    assert kept == live


@pytest.mark.parametrize("form", ["svg", "dot", "mermaid"])
def test_other_forms_draw_all_nodes(cluster, form):
    drawn = lab_graph(cluster, "-o", form).stdout
    assert all(node in drawn for node in cluster.spec.node_names)


@pytest.mark.parametrize("cluster", ["nftables"], indirect=True, scope="module")
def test_a_node_that_is_cut_off_is_drawn_lost_with_its_findings(cluster):
    """Which is the same in both modes."""
    quiet_or_not = cluster.spec.namespace("switch")
    ip("-n", quiet_or_not, "link", "set", "node-3", "down")
    try:

        def cut_off():
            found = document(lab_graph(cluster, "-o", "json"))
            (node,) = [each for each in found["overlays"][0]["nodes"] if each["name"] == "node-3"]
            return found if node["health"] == "lost" and len(found["findings"]) >= 4 else None

        found = eventually(cut_off, WAIT_S)
        assert {"node-1", "node-2", "node-3"} <= {each["node"] for each in found["findings"] if each["code"] == "NN104"}
        assert lab_graph(cluster, "-o", "svg").stdout.count("✗ lost") == 2
    finally:
        ip("-n", quiet_or_not, "link", "set", "node-3", "up")

    def healed():
        (overlay,) = document(lab_graph(cluster, "-o", "json"))["overlays"]
        return all(path["health"] == "ok" for path in overlay["paths"])

    assert eventually(healed, WAIT_S)


# Manners


def test_a_node_without_daemons_is_drawn_as_silent(tmp_path):
    nowhere = {**os.environ, "RUNTIME_DIRECTORY": str(tmp_path)}
    done = subprocess.run([NETCTL, "graph", "-o", "json"], env=nowhere, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    found = validated(json.loads(done.stdout))
    assert found["asked"] == [{"name": "this node", "silent": ["netagent", "netproxy"]}]
    assert [each["code"] for each in found["findings"]] == ["NN101", "NN201"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output-file", "/nowhere/x.html"], ["--output-file /nowhere/x.html", "No such file"]),
        (["--output-file", "/"], ["--output-file", "/"]),
        (["--from", "/nowhere.tar"], ["--from /nowhere.tar", "No such file"]),
        (["-o", "png"], ["png"]),
    ],
)
def test_bad_input_is_one_line_that_names_it(arguments, words):
    done = netctl("graph", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr.splitlines()[-1] for word in words)


def test_a_terminal_is_told_to_take_a_file_and_a_closed_pipe_is_no_error():
    controller, terminal = pty.openpty()
    done = subprocess.run([NETCTL, "graph"], stdout=terminal, stderr=subprocess.PIPE, text=True, check=False)
    os.close(terminal)
    os.close(controller)
    assert (done.returncode, done.stderr) == (
        *(2, "netctl: graph: a terminal shows no html; add --output-file nodenet.html\n"),
    )
    cut = subprocess.run(["bash", "-c", f"{NETCTL} graph | true"], stderr=subprocess.PIPE, text=True, check=False)
    assert (cut.returncode, cut.stderr) == (0, "")
