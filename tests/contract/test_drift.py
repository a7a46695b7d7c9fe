"""`netctl diff` on a real kernel: nothing of a healthy one, and each object that goes under the name of its owner."""

import asyncio
import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_network

import msgspec
import pytest
from five_services import five_services
from schemas import validated

from controlloop.client import UnreachableError
from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.iptables.kernel import Variant
from controlloop.nft.state import Chain
from controlloop.wanted import desired_page
from netagent.backends.backend import Node
from netagent.backends.vxlan import Vxlan, backend_data
from netagent.config import FirewallSettings
from netagent.firewall.desired import Mode, Policy
from netagent.firewall.firewall import Firewall
from netagent.firewall.nftables import Tunnel
from netagent.instance import FIRST, Instance
from netagent.kernel import OverlayKernel
from netagent.overlay import Overlay
from netagent.state import Underlay
from netagent.wanted import name_of, wanted_objects
from netctl.colour import plain
from netctl.diff.command import drift_of, show, unified
from netctl.diff.drift import Cause
from netctl.node import LiveNode
from proxy.belief_pages import wanted_rules
from proxy.config import ProxyMode
from proxy.frontends import Balance, Endpoint, Frontend, Protocol, ServiceName, ServicePortName
from proxy.iptables.desired import IptablesPlanner
from proxy.iptables.kernel import IptablesBackend
from proxy.nftables.desired import NftablesPlanner
from proxy.nftables.kernel import NftablesBackend
from proxy.node import Surroundings
from proxy.rules import BALANCES
from proxy.sync import RuleSync
from subnet_alloc.codec import render_attrs, render_key
from subnet_alloc.model import Lease, LeaseAttrs
from subnet_alloc.registry import Listing, Record
from subnet_alloc.snapshot import LeaseSnapshot

pytestmark = pytest.mark.usefixtures("netns")

VARIANTS = ["nftables", Variant.NFT, Variant.LEGACY]
V6 = ServiceName("default", "six")


class Asked(LiveNode):
    """The kernel of this namespace, and a daemon's page."""

    def __init__(self, daemon, page):
        super().__init__()
        self.daemons = [daemon]
        self._page = msgspec.json.decode(page)

    def page(self, _daemon, _page):
        return self._page

    daemons = ()


def services(variant):
    known = BALANCES[ProxyMode.NFTABLES if variant == "nftables" else ProxyMode.IPTABLES]
    frontends = {
        service: [each if each.balance in known else replace(each, balance=Balance.RANDOM) for each in several]
        for service, several in five_services().items()
    }
    endpoints = tuple(Endpoint(ip_address(f"fd00:244::{n}"), 8080, n == 1) for n in (1, 2))
    name = ServicePortName(V6, "http")
    six = Frontend(name, ip_address("fd00:96::1"), Protocol.TCP, 80, Balance.RANDOM, endpoints)
    return {**frontends, V6: [six]}


def rules_of(variant, family):
    around = Surroundings(family, pods=ip_network("10.244.0.0/16" if family is Family.V4 else "fd00:244::/48"))
    if variant == "nftables":
        around = replace(around, service_counters=True)
        return RuleSync("nftables", NftablesPlanner(around), NftablesBackend(family, service_counters=True))
    return RuleSync("iptables", IptablesPlanner(around), IptablesBackend(family, variant))


@pytest.fixture(params=VARIANTS, ids=str)
def variant(request):
    return request.param


@pytest.fixture
def engines(netns, variant):
    made = {family: rules_of(variant, family) for family in Family}
    for engine in made.values():
        engine.plan(services(variant).items())
        asyncio.run(engine.sync())
    return made


class Recorded(Asked):
    """As a bundle answers, which has what programs print and no netlink."""

    is_live = False


def page_of(engines):
    rules = [asyncio.run(wanted_rules(family, engine)) for family, engine in engines.items()]
    return desired_page({"begun": True}, rules)


def test_a_healthy_node_has_none(engines):
    page = page_of(engines)
    drift = drift_of(Asked("netproxy", page))
    assert drift.differences == drift_of(Recorded("netproxy", page)).differences == []
    assert not drift.unread
    assert drift.compared == sum(len(engine.desired) for engine in engines.values()) > 40
    assert drift.exit_code == 0


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


def run(*argv):
    subprocess.run(argv, check=True, capture_output=True)


FOREIGN = {
    "nftables": ("nft", "add", "rule", "ip", "netproxy", "services", "ip", "daddr", "10.96.0.1", "counter", "drop"),
    Variant.NFT: ("iptables-nft", "-t", "nat", "-I", "NETPROXY-SERVICES", "-d", "10.96.0.1", "-j", "RETURN"),
    Variant.LEGACY: ("iptables-legacy", "-t", "nat", "-I", "NETPROXY-SERVICES", "-d", "10.96.0.1", "-j", "RETURN"),
}
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

UNDERLAY = {
    Family.V4: Underlay("under0", 1500, ip_address("192.0.2.1")),
    Family.V6: Underlay("under0", 1500, ip_address("2001:db8::1")),
}
NETWORKS = {Family.V4: ip_network("10.244.0.0/16"), Family.V6: ip_network("fd00:244::/48")}


def lease(number):
    attrs = LeaseAttrs(
        {Family.V4: ip_address(f"192.0.2.{number}"), Family.V6: ip_address(f"2001:db8::{number}")},
        "vxlan",
        {family: backend_data(1, f"02:00:00:00:0{family.value}:0{number}") for family in Family},
    )
    subnets = {Family.V4: ip_network(f"10.244.{number}.0/24"), Family.V6: ip_network(f"fd00:244:0:{number}::/64")}
    return Lease(subnets, attrs)


def record(number):
    return Record(render_key(lease(number).subnets), render_attrs(lease(number).attrs), number)


@pytest.fixture
def overlay(netns):
    for words in (
        "link add under0 type veth peer name under1",
        "address add 192.0.2.1/24 dev under0",
        "address add 2001:db8::1/64 dev under0 nodad",
        "link set under0 up",
        "link set under1 up",
    ):
        run("ip", *words.split())
    addresses = {family: each.address for family, each in UNDERLAY.items()}
    made = Overlay(Node("node-a", Vxlan(), UNDERLAY, addresses, NETWORKS))
    snapshot = LeaseSnapshot.of(Listing(9, (record(1), record(2), record(3))))
    made.follow(record(1).key, lease(1), snapshot, snapshot.leases.keys())
    apply_overlay(Delta(put=dict(made.objects)))
    return made


def apply_overlay(delta):
    kernel = OverlayKernel()
    try:
        asyncio.run(kernel.apply(delta))
    finally:
        kernel.close()


def overlay_node(overlay):
    head = {"begun": True, "protocol": FIRST.protocol, "alias": FIRST.alias}
    return Asked("netagent", desired_page(head, [], wanted_objects(overlay)))


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
