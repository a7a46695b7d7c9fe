"""`netctl diff` on a real kernel: nothing of a healthy one, and each object that goes under the name of its owner."""

import asyncio
from dataclasses import replace

import pytest
from rules_and_overlays import (
    FOREIGN,
    NETWORKS,
    Asked,
    Recorded,
    apply_overlay,
    counters,
    engines,
    lease,
    overlay,
    overlay_node,
    page_of,
    record,
    rules_of,
    run,
    services,
    variant,
)
from schemas import validated

from controlloop.client import UnreachableError
from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.nft.state import Chain
from controlloop.wanted import desired_page
from netagent.config import FirewallSettings
from netagent.firewall.desired import Mode, Policy
from netagent.firewall.firewall import Firewall
from netagent.firewall.nftables import Tunnel
from netagent.instance import FIRST, Instance
from netagent.wanted import name_of
from netctl.colour import plain
from netctl.diff.command import drift_of, show, unified
from netctl.diff.drift import Cause
from netctl.node import LiveNode

pytestmark = pytest.mark.usefixtures("netns")
__all__ = ["counters", "engines", "overlay", "variant"]
"""Fixtures."""


def test_a_healthy_node_has_none(engines):
    page = page_of(engines)
    drift = drift_of(Asked("netproxy", page))
    assert drift.differences == drift_of(Recorded("netproxy", page)).differences == []
    assert not drift.unread
    assert drift.compared == sum(len(engine.desired) for engine in engines.values()) > 40
    assert drift.exit_code == 0


def test_counters_are_compared_beside_the_rules(engines, counters):
    node = Asked("netproxy", page_of(engines, counters))
    assert not drift_of(node).differences
    run("nft", "delete", "element", "ip", "netproxy-counters", "traffic", "{ 10.96.0.1 . tcp . 80 }")
    [found] = drift_of(node).differences
    assert (found.place, found.owner.name) == ("table ip netproxy-counters", "Service default/web")
    run("nft", "delete", "table", "ip6", "netproxy-counters")
    assert [each.place for each in drift_of(node).differences][1:] == ["table ip6 netproxy-counters"]


@pytest.mark.parametrize("part", ["elements", "rules"])
def test_all_that_goes_is_missed_under_its_owners_name(engines, part):
    node = Asked("netproxy", page_of(engines))
    for engine in engines.values():
        gone = {key: value for key, value in engine.desired.items() if takes_part(key, value) == part}
        if not gone:
            continue  # iptables has no elements
        emptied = {key: without_rules(value) for key, value in gone.items() if is_declared(key)}
        asyncio.run(engine.backend.apply(Delta(put=emptied, drop=gone)))
        found = drift_of(node).differences
        assert {each.cause for each in found} == {Cause.MISSING}
        assert {each.object: each.owner.name for each in found} == dict(expected(engine, gone))
        asyncio.run(engine.backend.apply(Delta(put=gone, drop=emptied)))
        assert drift_of(node).differences == []


def takes_part(key, value):
    if isinstance(value, Chain | tuple):
        has_rules = value.rules if isinstance(value, Chain) else value
        return "rules" if has_rules else ""
    return "elements" if isinstance(value, str) else ""


def is_declared(key):
    """A chain that others jump to can only be emptied."""
    return key[0] == "chain" or key[1].startswith("NETPROXY-")


def without_rules(value):
    return replace(value, rules=()) if isinstance(value, Chain) else ()


def expected(engine, gone):
    """Name of each object, and of whom it is for."""
    owners = {}
    for service, keys in engine.owned():
        for key in keys if service else ():
            owners.setdefault(tuple(key), set()).add(f"Service {service}")
    named = {key: min(services) for key, services in owners.items()}
    for key, value in gone.items():
        if key[0] == "element":
            yield f"element {key.name} {{ {key.element} }}", named.get(tuple(key), "netproxy")
        elif key[0] == "chain":
            yield f"chain {key.name}", named.get(tuple(key), "netproxy")
        elif key in named:
            yield f"{key[0]} chain {key[1]}", named[key]
        else:
            for rule in value:
                yield f"{key[0]} chain {key[1]}: {rule}", named.get((key[0], rule), "netproxy")


SHOWN = {"nftables": "ip daddr 10.96.0.1 counter drop"}


def test_a_rule_of_somebody_else_among_ours_is_shown_with_what_it_says(engines, variant):
    run(*FOREIGN[variant])
    [found] = drift_of(Asked("netproxy", page_of(engines))).differences
    shown = SHOWN.get(variant, "-A NETPROXY-SERVICES -d 10.96.0.1/32 -j RETURN")
    assert (found.actual, found.wanted) == ((shown,), ())
    assert found.owner.name == ("netproxy" if variant == "nftables" else "")


def test_rules_that_are_gone_as_a_whole_are_one_object(engines, variant):
    for engine in engines.values():
        asyncio.run(engine.backend.cleanup())
    drift = drift_of(Asked("netproxy", page_of(engines)))
    assert [each.object for each in drift.differences] == ["table" if variant == "nftables" else "all chains"] * 2
    assert validated(drift.document)["items"][0]["cause"] == "missing"


def test_another_endpoint_under_an_element_is_a_change():
    engine = rules_of("nftables", Family.V4)
    engine.plan(services("nftables").items())
    asyncio.run(engine.sync())
    [key] = [key for key in engine.desired if key.element.startswith("10.96.0.10 . 53 . 0")]
    place = ("ip", "netproxy", key.name)
    run("nft", f"delete element {' '.join(place)} {{ {key.element} }}")
    run("nft", f"add element {' '.join(place)} {{ {key.element} : 192.0.2.66 . 53 }}")
    drift = drift_of(Asked("netproxy", page_of({Family.V4: engine})))
    assert (
        "\n".join(unified(drift, plain, everything=False))
        == f"""\
--- wanted
+++ in the kernel

table ip netproxy
@@ changed: element udp-endpoints {{ {key.element} }} (Service kube-system/dns)
-{key.element} : 10.244.1.9 . 53
+{key.element} : 192.0.2.66 . 53"""
    )


# The overlay


def test_a_healthy_overlay_has_none(overlay):
    drift = drift_of(overlay_node(overlay))
    assert drift.differences == []
    assert drift.compared == len(overlay.objects) > 12


def test_each_object_of_the_overlay_that_goes_is_missed_under_its_owners_name(overlay):
    node = overlay_node(overlay)
    owners = {key: f"peer {owner}" if owner else "netagent" for owner, keys in overlay.owned().items() for key in keys}
    singles = [key for key in overlay.objects if key.kind in ("route", "neighbor", "fdb")]
    assert len(singles) == 12
    for key in singles:
        one = overlay.objects[key]
        apply_overlay(Delta(drop={key: one}))
        [found] = drift_of(node).differences
        assert (found.cause, found.object) == (Cause.MISSING, f"{key.kind} {name_of(one)}")
        assert (found.owner.name, found.wanted) == (owners[key], (str(one),))
        apply_overlay(Delta(put={key: one}))


def test_what_others_do_to_our_devices_and_routes_is_told(overlay):
    run("ip", "link", "set", "flannel.1", "mtu", "1400")
    run("ip", "route", "replace", "10.244.2.0/24", "dev", "under0")
    run("ip", "route", "add", "10.99.0.0/16", "dev", "under0", "proto", str(FIRST.protocol))
    run("ip", "neighbor", "add", "10.244.9.9", "lladdr", "02:00:00:00:00:99", "dev", "flannel.1")
    run("bridge", "fdb", "add", "02:00:00:00:00:99", "dev", "flannel.1", "dst", "192.0.2.9")
    run("ip", "address", "add", "10.244.9.1/32", "dev", "flannel.1")
    found = {each.object: (each.cause.value, each.owner.name) for each in drift_of(overlay_node(overlay)).differences}
    assert found == {
        "link flannel.1": ("changed", "netagent"),
        "route 10.244.2.0/24": ("changed", f"peer {record(2).key}"),
        "route 10.99.0.0/16": ("extra", ""),
        "neighbor 10.244.9.9 dev flannel.1": ("extra", ""),
        "fdb 02:00:00:00:00:99 dev flannel.1": ("extra", ""),
        "address 10.244.9.1/32 dev flannel.1": ("extra", ""),
    }


@pytest.mark.parametrize("mode", Mode)
def test_the_agents_firewall_is_compared_too(netns, mode):
    settings = FirewallSettings(True, (), False, True, 5, True)
    firewall = Firewall(Policy(settings, mode, Tunnel(8472, 1), Instance(0)))
    firewall.plan(NETWORKS, lease(1).subnets)
    firewall.plan_peers([(record(2).key, lease(2).attrs.public_ip.values())])
    asyncio.run(firewall.sync(resync=True))
    head = {"begun": True, "protocol": FIRST.protocol, "alias": FIRST.alias}
    node = Asked("netagent", desired_page(head, asyncio.run(firewall.wanted())))
    assert drift_of(node).differences == []
    run("nft", "delete", "element", "ip", "netagent", "peers", "{", "192.0.2.2", "}")
    if mode is Mode.NFTABLES:
        run("nft", "flush", "chain", "ip", "netagent", "forward")
    else:
        run("iptables", "-F", "NETAGENT-FORWARD")
    peer, *rest = sorted(drift_of(node).differences, key=lambda each: each.object != "element peers { 192.0.2.2 }")
    assert (peer.object, peer.owner.name) == ("element peers { 192.0.2.2 }", f"peer {record(2).key}")
    assert {each.owner.name for each in rest} == {"netagent"}
    assert sum(len(each.wanted) for each in rest) == 2


# Who does not answer


def test_a_daemon_that_is_silent_or_has_not_written_is_named(tmp_path, capsys):
    class Silent(LiveNode):
        def page(self, daemon, _page):
            if daemon == "netproxy":
                raise UnreachableError("no such file")
            return {"begun": False}

    assert show(Silent(tmp_path), "table") == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "netctl: netagent is not compared: it has not written anything yet",
        "netctl: netproxy is not compared: no such file",
    ]
