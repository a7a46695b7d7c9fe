"""What `netctl plan` foresees: through netproxy's page, as netctl gets it."""

import json
import sys

import msgspec
import pytest
from builders import make_endpoint, make_endpoint_slice, make_service
from hypothesis import given
from hypothesis import strategies as st
from schemas import validated

from controlloop.family import Family
from controlloop.flags import run_command
from netctl.colour import plain
from netctl.main import netctl
from netctl.plan.command import lines
from netctl.plan.planned import foreseen_of, plan
from netctl.proxy_objects import read_taken
from proxy.belief_pages import objects_page
from proxy.config import ProxyMode
from proxy.frontends import Balance
from proxy.node import Interfaces, Node, Surroundings
from proxy.objects import Kind, ObjectName
from proxy.services import Options
from proxy.sources import Batch, Update
from proxy.tracker import Tracker

KINDS = {"Service": Kind.SERVICE, "EndpointSlice": Kind.ENDPOINT_SLICE}
NODE = Node("node-1", "zone-a")


def objects(*documents):
    return {
        (KINDS[each["kind"]], ObjectName(each["metadata"]["namespace"], each["metadata"]["name"])): json.dumps(
            each
        ).encode()
        for each in documents
    }


def page_of(mode, *documents, node=NODE):
    """As netproxy with these objects answers."""
    tracker = Tracker(node, Options(balance=Balance.RANDOM))
    tracker.apply(Batch(tuple(Update(*key, body) for key, body in objects(*documents).items()), listed=True))
    around = [Surroundings(family, pods=Interfaces("cni0")) for family in Family]
    taken = tracker.taken_in()
    head = {"mode": mode, "node": taken.node, "options": taken.options, "surroundings": around}
    return tracker, msgspec.json.decode(objects_page(head, taken))


def planned(documents, before=(), mode=ProxyMode.NFTABLES, *, other=None, deletes=False):
    _, page = page_of(mode, *before)
    made = plan(read_taken(page), objects(*documents), other, deletes=deletes)
    validated(made.document)
    return made


def text(made):
    return list(lines(made, plain, sys.maxsize))


def test_a_long_refusal_is_wrapped_below_its_mark_and_not_cut():
    hostile = make_service(
        name="x" * 200, cluster_ips=["10.96.0.98"], ports=[("a", "TCP", 80), ("a\x1b[2J", "TCP", 80)]
    )
    made = planned([hostile])
    assert made.refusals
    shown = [line for line in lines(made, plain, 80) if line.startswith(("! ", "    "))]
    assert max(map(len, shown)) <= 80
    assert [line for line in shown if line.startswith("!")] == shown[:1]
    assert "".join(shown).replace(" ", "") in "".join(text(made)).replace(" ", "")
    assert not any("\x1b" in line for line in shown)


WEB = (
    make_service(type="NodePort", ports=[("http", "TCP", 80, 30080)], created="2026-01-01T00:00:00Z"),
    make_endpoint_slice(endpoints=["10.244.1.5", make_endpoint("10.244.2.5", node="node-1")]),
)

names = st.sampled_from(["web", "api", "db"])
ports = st.sampled_from([[("http", "TCP", 80)], [("http", "TCP", 80, 30080), ("dns", "UDP", 53)], [("a", "SCTP", 9)]])
endpoints = st.lists(
    st.builds(
        make_endpoint,
        st.sampled_from([f"10.244.1.{n}" for n in range(1, 9)]),
        node=st.sampled_from([None, "node-1", "node-2"]),
        zone=st.sampled_from([None, "zone-a", "zone-b"]),
        for_zones=st.sampled_from([None, ["zone-a"], ["zone-a", "zone-b"]]),
        for_nodes=st.sampled_from([None, ["node-1"]]),
        ready=st.sampled_from([None, True, False]),
        serving=st.sampled_from([None, True, False]),
        terminating=st.sampled_from([None, True, False]),
    ),
    max_size=5,
)
annotations = st.sampled_from(
    [
        None,
        {"nodenet.io/balance": "round-robin"},
        {"nodenet.io/balance": "weighted", "nodenet.io/weights": "10.244.1.1=3,zone-b=7"},
        {"nodenet.io/drain-timeout": "30"},
    ]
)
services = st.builds(
    make_service,
    name=names,
    cluster_ips=st.sampled_from([("10.96.0.10",), ("10.96.0.11", "fd00:96::11"), ("fd00:96::12",)]),
    ports=ports,
    type=st.sampled_from([None, "NodePort", "LoadBalancer"]),
    created=st.sampled_from([None, "2026-01-01T00:00:00Z", "2026-02-02T00:00:00.5Z"]),
    annotations=annotations,
    ingress=st.sampled_from([None, [{"ip": "192.0.2.1"}]]),
    externalIPs=st.sampled_from([None, ["198.51.100.7"]]),
    externalTrafficPolicy=st.sampled_from([None, "Local"]),
    internalTrafficPolicy=st.sampled_from([None, "Local"]),
    loadBalancerSourceRanges=st.sampled_from([None, ["203.0.113.0/24"]]),
    sessionAffinity=st.sampled_from([None, "ClientIP"]),
)
slices = st.builds(make_endpoint_slice, name=st.sampled_from(["a", "b"]), service=names, endpoints=endpoints)
worlds = st.lists(services | slices, max_size=7)


@given(worlds)
def test_what_netctl_reads_is_what_netproxy_has(world):
    tracker, page = page_of(ProxyMode.NFTABLES, *world)
    theirs, ours = tracker.taken_in(), read_taken(page).objects
    assert ours == theirs


@given(worlds, st.sampled_from(ProxyMode))
def test_a_plan_of_what_is_there_is_empty(world, mode):
    made = planned(world, world, mode)
    assert [each.verb for each in made.services if each.verb != "unchanged" and not is_given_more(made, each)] == []
    assert all(sum(value for key, value in each.items() if key != "family") == 0 for each in made.writes)


def is_given_more(made, change):
    return f"Service {change.service}" in made.notes


def seen(tracker, service):
    """What of a Service's frontends a plan tells."""
    return {
        (each.key, tuple(map(str, each.endpoints)), each.inside, each.balance, each.sources, each.affinity_s)
        for each in tracker.frontends(service)
    }


@given(worlds, worlds)
def test_a_plan_names_each_service_that_changes_and_no_other(before, after):
    had, page = page_of(ProxyMode.NFTABLES, *before)
    taken = read_taken(page)
    made = plan(taken, objects(*after), None, deletes=False)
    known = {each.name: each for each in taken.objects.services}
    updates = [each.update for each in foreseen_of(objects(*after), known, deletes=False)]
    has = Tracker.going_on(taken.objects)
    has.apply(Batch(tuple(updates), listed=False))
    changed = {each.service for each in made.services if each.verb != "unchanged"}
    for service in had.services() | has.services():
        assert (service in changed) >= (seen(had, service) != seen(has, service))
    given_more = {each.service for each in made.services if is_given_more(made, each)}
    for service in (changed - given_more) & had.services() & has.services():
        assert had.frontends(service) != has.frontends(service)


def test_a_new_service_is_shown_with_its_endpoints():
    made = planned(WEB)
    assert text(made) == [
        "default/web: added",
        "  + 10.96.0.10:80/tcp ClusterIP: +10.244.1.5:8080, +10.244.2.5:8080",
        "  + node port 30080/tcp NodePort: +10.244.1.5:8080, +10.244.2.5:8080",
        "nftables ip: writes 4 rules in 2 chains, 10 elements; removes 0 objects",
        "nftables ip6: writes 0 rules in 0 chains, 0 elements; removes 0 objects",
        "nothing was applied",
    ]


def test_a_changed_endpoint_changes_its_frontends_and_no_rule():
    made = planned([make_endpoint_slice(endpoints=["10.244.1.5", "10.244.9.9"])], WEB)
    assert text(made)[:4] == [
        "default/web: changed",
        "  ~ 10.96.0.10:80/tcp ClusterIP: +10.244.9.9:8080, -10.244.2.5:8080",
        "  ~ node port 30080/tcp NodePort: +10.244.9.9:8080, -10.244.2.5:8080",
        "nftables ip: writes 0 rules in 0 chains, 3 elements; removes 1 objects",
    ]


def test_a_deletion_is_planned_as_one():
    made = planned(WEB, WEB, deletes=True)
    assert text(made)[:3] == [
        "default/web: removed",
        "  - 10.96.0.10:80/tcp ClusterIP",
        "  - node port 30080/tcp NodePort",
    ]
    assert made.writes[0]["removed"] == 12


def test_settings_that_change_are_named_with_both_values():
    made = planned([make_service(ports=[("http", "TCP", 80)], sessionAffinity="ClientIP")], WEB)
    assert text(made)[1] == "  ~ 10.96.0.10:80/tcp ClusterIP: affinity_s 0 -> 10800"


def test_what_an_older_service_has_is_refused():
    rival = make_service(name="rival", cluster_ips=["10.96.0.99"], type="NodePort", ports=[("x", "TCP", 81, 30080)])
    made = planned([rival], WEB)
    [(name, reason)] = made.refusals.items()
    assert name == "Service default/rival"
    assert "node port 30080/tcp belongs to default/web" in reason


def test_an_annotation_that_the_mode_does_not_know_is_refused_in_that_mode_alone():
    hashed = make_service(annotations={"nodenet.io/balance": "consistent"})
    assert planned([hashed]).refusals == {}
    made = planned([hashed], other=ProxyMode.IPTABLES)
    assert "is none of random, round-robin, weighted" in made.refusals["Service default/web"]
    assert made.writes[0]["elements"] == 0 < made.writes[0]["rules"]


def test_a_service_keeps_what_it_was_given_and_a_new_one_is_noted():
    short = make_service(cluster_ips=(), type="NodePort", ports=[("http", "TCP", 80)])
    assert [each.verb for each in planned([short], WEB).services] == ["unchanged"]
    made = planned([short])
    assert made.notes["Service default/web"].startswith("is given 2 addresses or ports when it is applied")
    assert text(made)[0] == "default/web: added"


def test_a_service_that_is_given_a_port_is_changed():
    wider = make_service(cluster_ips=(), type="NodePort", ports=[("http", "TCP", 80), ("more", "TCP", 81)])
    made = planned([wider], WEB)
    assert text(made)[0] == "default/web: changed"
    assert made.notes["Service default/web"].startswith("is given 1 address or port when it is applied")


def test_an_object_that_makes_no_sense_is_refused_and_what_was_there_stays():
    made = planned([make_service(ports=[("a", "TCP", 80), ("a", "TCP", 81)])], WEB)
    assert "is there twice" in made.refusals["Service default/web"]
    assert [each.verb for each in made.services] == ["unchanged"]
    odd = make_service()
    odd["spec"] = 7
    assert "Service default/web" in planned([odd]).refusals


# The command


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "web.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(WEB)}))
    return str(path)


@pytest.fixture
def proxy(tmp_path, monkeypatch):
    page = page_of(ProxyMode.NFTABLES)[1]
    monkeypatch.setattr("netctl.node.LiveNode.page", lambda _node, _daemon, _page: page)


def test_the_exit_code_says_whether_all_would_be_served(proxy, manifest, capsys):
    assert run_command(netctl, ["plan", "-f", manifest, "-o", "name"]) == 0
    assert capsys.readouterr().out == "service/default/web\n"


@pytest.mark.parametrize("form", ["json", "yaml", "table", "wide"])
def test_every_form_is_printed(proxy, manifest, capsys, form):
    assert run_command(netctl, ["plan", "-f", manifest, "-o", form]) == 0
    assert "10.244.1.5:8080" in capsys.readouterr().out


def test_a_manifest_that_cannot_be_read_is_2_and_a_silent_daemon_3(manifest, tmp_path, monkeypatch, capsys):
    assert run_command(netctl, ["plan", "-f", str(tmp_path / "none.yaml")]) == 2
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    assert run_command(netctl, ["plan", "-f", str(broken)]) == 2
    monkeypatch.setattr("netctl.node.runtime_directory", lambda: tmp_path)
    assert run_command(netctl, ["plan", "-f", manifest]) == 3
    assert "netproxy does not answer" in capsys.readouterr().err
