"""Services that the kernel's programs refuse although every check of ours let them pass, beside those that are good."""

import asyncio
import re
import subprocess
from ipaddress import ip_address, ip_network

import pytest

from controlloop.family import Family
from controlloop.iptables.kernel import Variant
from proxy.frontends import Balance, Endpoint, Frontend, Protocol, ServiceName, ServicePortName
from proxy.iptables.desired import IptablesPlanner
from proxy.iptables.kernel import IptablesBackend
from proxy.nftables.desired import NftablesPlanner
from proxy.nftables.kernel import NftablesBackend
from proxy.node import Surroundings
from proxy.sync import RuleSync

pytestmark = pytest.mark.usefixtures("netns")

SURROUNDINGS = Surroundings(Family.V4, pods=ip_network("10.244.0.0/16"))


def nftables():
    return NftablesPlanner(SURROUNDINGS), NftablesBackend(Family.V4)


def iptables(variant):
    return IptablesPlanner(SURROUNDINGS), IptablesBackend(Family.V4, variant)


VARIANTS = {
    "nftables": nftables,
    "iptables-nft": lambda: iptables(Variant.NFT),
    "iptables-legacy": lambda: iptables(Variant.LEGACY),
}


@pytest.fixture(params=VARIANTS)
def rules(request):
    planner, backend = VARIANTS[request.param]()
    made = RuleSync(request.param, planner, backend)
    yield made
    made.close()


BAD = 70_000
"""A port that no rule can lead to; no check of ours would let it come so far."""


def service(number):
    return ServiceName("default", f"s{number}")


def served(number, port=8080):
    endpoints = (Endpoint(ip_address("10.244.1.2"), port, is_local=True),)
    name = ServicePortName(service(number), "http")
    address = ip_address("10.96.0.0") + number
    return service(number), (Frontend(name, address, Protocol.TCP, 80, Balance.RANDOM, endpoints),)


def listed(rules):
    """All addresses of Services in the kernel's own listing."""
    argv = ["nft", "list", "table", "ip", "netproxy"] if rules.name == "nftables" else [f"{rules.name}-save"]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    words = text.replace("/32", "").replace(",", " ").split()
    # Beside them nftables holds the networks that they are in, by their first address.
    return {word for word in words if word.startswith("10.96.") and "/" not in word} - addresses(0)


def addresses(*numbers):
    return {str(ip_address("10.96.0.0") + number) for number in numbers}


@pytest.mark.kube_proxy("extra-4")
async def test_the_bad_ones_among_many_are_found_and_named_and_the_others_are_in(rules):
    rules.plan([served(number, BAD if number in {7, 23} else 8080) for number in range(1, 41)])
    await rules.sync()
    assert listed(rules) == addresses(*(number for number in range(1, 41) if number not in {7, 23}))
    assert rules.quarantined.keys() == {service(7), service(23)}
    for quarantined in rules.quarantined.values():
        assert re.search("^the kernel refuses it: .*(out of range|70000)", quarantined.reason)
    await rules.audit()
    assert rules.in_kernel, "what is refused is not desired"


@pytest.mark.kube_proxy("extra-4")
async def test_a_change_that_is_refused_leaves_the_last_good_version_and_what_mends_it_ends_the_quarantine(rules):
    rules.plan([served(1), served(2)])
    await rules.sync()
    rules.plan([served(1, BAD), served(3)])
    await rules.sync()
    assert rules.quarantined.keys() == {service(1)}
    assert listed(rules) == addresses(1, 2, 3)
    rules.plan([served(1, 8081)])
    await rules.sync()
    assert not rules.quarantined
    assert listed(rules) == addresses(1, 2, 3)
    await rules.audit()
    assert rules.in_kernel


async def test_one_that_goes_leaves_nothing_and_one_that_stays_bad_harms_nobody_when_it_is_tried_again(rules):
    rules.plan([served(1), served(2, BAD), served(3, BAD)])
    await rules.sync()
    rules.plan([(service(3), ())])
    rules.retry_quarantined()
    await rules.sync()
    assert rules.quarantined.keys() == {service(2)}
    assert rules.stats.quarantines == 3
    assert listed(rules) == addresses(1)
    rules.plan([served(4)])
    await rules.sync()
    assert listed(rules) == addresses(1, 4)


async def test_the_bad_one_is_found_beside_drift(rules):
    rules.plan([served(1), served(2)])
    await rules.sync()
    await rules.start_watch()
    command = ["nft", "delete", "table", "ip", "netproxy"]
    if rules.name != "nftables":
        command = [rules.name, "-t", "nat", "-F", "NETPROXY-SERVICES"]
    await asyncio.to_thread(subprocess.run, command, check=True)
    rules.plan([served(3, BAD), served(4)])
    await rules.sync()
    await rules.audit()
    await rules.sync()
    assert rules.quarantined.keys() == {service(3)}
    assert listed(rules) == addresses(1, 2, 4)
