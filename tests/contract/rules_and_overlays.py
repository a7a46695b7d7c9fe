"""Rules and overlays in the kernel of a test's namespace, with the daemon's page that wants them."""

import asyncio
import subprocess
from ipaddress import ip_address, ip_network

import msgspec
import pytest
from five_services import five_services
from msgspec import structs

from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.iptables.kernel import Variant
from controlloop.wanted import desired_page
from netagent.backends.backend import Node
from netagent.backends.vxlan import Vxlan, backend_data
from netagent.instance import FIRST
from netagent.kernel import OverlayKernel
from netagent.overlay import Overlay
from netagent.state import Underlay
from netagent.wanted import wanted_objects
from netctl.node import LiveNode
from proxy.belief_pages import wanted_rules, wanted_table
from proxy.config import ProxyMode
from proxy.counting.kernel import TABLE as COUNTERS
from proxy.frontends import Balance, Endpoint, Frontend, Protocol, ServiceName, ServicePortName
from proxy.iptables.desired import IptablesPlanner
from proxy.iptables.kernel import IptablesBackend
from proxy.nftables.desired import NftablesPlanner
from proxy.nftables.kernel import NftablesBackend
from proxy.node import Surroundings
from proxy.rules import BALANCES, counter
from proxy.sync import RuleSync
from subnet_alloc.codec import render_attrs, render_key
from subnet_alloc.model import Lease, LeaseAttrs
from subnet_alloc.registry import Listing, Record
from subnet_alloc.snapshot import LeaseSnapshot


def run(*argv):
    subprocess.run(argv, check=True, capture_output=True)


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
        service: [each if each.balance in known else structs.replace(each, balance=Balance.RANDOM) for each in several]
        for service, several in five_services().items()
    }
    endpoints = tuple(Endpoint(ip_address(f"fd00:244::{n}"), 8080, n == 1) for n in (1, 2))
    name = ServicePortName(V6, "http")
    six = Frontend(name, ip_address("fd00:96::1"), Protocol.TCP, 80, Balance.RANDOM, endpoints)
    return {**frontends, V6: [six]}


def rules_of(variant, family):
    around = Surroundings(family, pods=ip_network("10.244.0.0/16" if family is Family.V4 else "fd00:244::/48"))
    if variant == "nftables":
        return RuleSync("nftables", NftablesPlanner(around), NftablesBackend(family))
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


@pytest.fixture
def counters(engines, variant):
    """Beside the engines."""
    made = {family: counter(Surroundings(family), lambda: None) for family in Family}
    for engine in made.values():
        engine.plan(services(variant).items())
        asyncio.run(engine.sync())
    return made


class Recorded(Asked):
    """As a bundle answers, which has what programs print and no netlink."""

    is_live = False


def page_of(engines, counters=()):
    rules = [asyncio.run(wanted_rules(family, engine)) for family, engine in engines.items()]
    rules += [wanted_table(family, COUNTERS, counters[family]) for family in counters]
    return desired_page({"begun": True}, rules)


FOREIGN = {
    "nftables": ("nft", "add", "rule", "ip", "netproxy", "services", "ip", "daddr", "10.96.0.1", "counter", "drop"),
    Variant.NFT: ("iptables-nft", "-t", "nat", "-I", "NETPROXY-SERVICES", "-d", "10.96.0.1", "-j", "RETURN"),
    Variant.LEGACY: ("iptables-legacy", "-t", "nat", "-I", "NETPROXY-SERVICES", "-d", "10.96.0.1", "-j", "RETURN"),
}

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
