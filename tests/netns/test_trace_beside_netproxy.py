"""`netctl trace` on a node where netproxy runs: a Service by name, and nothing that netproxy would repair."""

import json
import subprocess

import pytest
from deadline import PATIENCE_S, eventually
from proxy_lab import NODE, VARIANTS, bring_up_proxy
from schemas import validated

WEB, IDLE = "10.96.0.10", "10.96.0.11"


@pytest.fixture(scope="module", params=VARIANTS)
def lab(request):
    made = bring_up_proxy(request.param, pods=2, name="trace")
    try:
        eventually(made.is_ready)
        made.serve("web", WEB, ["pod-1-1"])
        made.serve("idle", IDLE, [])
        made.answers(WEB, ["pod-1-1"], caller="pod-1-2")
        yield made
    finally:
        made.down()


def trace(lab, *arguments, call):
    """Exit code, the document, and what it said on stderr."""
    argv = ["netctl", "trace", *arguments, "-o", "json", "--count", "1", "--timeout", "60s"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with lab.host(NODE).popen(argv, **streams) as process:
        line = process.stderr.readline()
        while line and "waiting for" not in line:
            line = process.stderr.readline()
        call()
        output, errors = process.communicate(timeout=2 * PATIENCE_S)
    assert output, errors
    return process.returncode, validated(json.loads(output))["items"][0]


def test_a_service_by_name(lab):
    code, item = trace(lab, "any", "default/web", call=lambda: lab.call("pod-1-2", WEB))
    assert (code, item["live"], item["verdict"]) == (0, True, "dnat")
    assert (item["service"], item["scope"]) == ("default/web:main", "ClusterIP")
    assert item["endpoint"] == {"address": str(lab.pod_address("pod-1-1")), "port": 8080}


def test_whose_refusal_it_is(lab):
    code, item = trace(lab, "any", "default/idle", call=lambda: lab.call("pod-1-2", IDLE))
    assert (code, item["verdict"], item["service"]) == (1, "reject", "default/idle:main")
    assert item["reason"]["code"] == "no-endpoints"


def test_netproxy_repairs_nothing(lab):
    """What it hears of the foreign table concerns it not. A repair takes a quarter of a second, a run takes longer."""
    before = lab.repairs()
    for _ in range(2):
        trace(lab, "any", "default/web", call=lambda: lab.call("pod-1-2", WEB))
    assert lab.repairs() == before
    assert lab.is_ready()


def test_a_service_that_is_none(lab):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with lab.host(NODE).popen(["netctl", "trace", "default/nope"], **streams) as process:
        output, errors = process.communicate(timeout=2 * PATIENCE_S)
    assert (process.returncode, output) == (2, "")
    assert "serves no such Service" in errors
