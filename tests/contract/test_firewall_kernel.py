"""The firewall against a real kernel, in both modes and both families at once."""

import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from controlloop.command import CommandError
from controlloop.delta import Delta, diff
from controlloop.family import Family
from controlloop.iptables.kernel import IptablesChains, Variant
from controlloop.reconcile import reconcile
from netagent.config import FirewallSettings
from netagent.firewall.desired import Mode, Policy, chain_objects
from netagent.firewall.firewall import Firewall
from netagent.firewall.iptables import owned
from netagent.firewall.kernel import iptables_takes_random_fully, nft_takes_fully_random
from netagent.firewall.nftables import Tunnel
from netagent.firewall.translation import Pods
from netagent.instance import FIRST

pytestmark = pytest.mark.usefixtures("netns")

NETWORKS = {Family.V4: ip_network("10.244.0.0/16"), Family.V6: ip_network("fd00:244::/48")}
OWN = {Family.V4: ip_network("10.244.1.0/24"), Family.V6: ip_network("fd00:244:0:1::/64")}
SETTINGS = FirewallSettings(
    ip_masq=True,
    masq_exclude=(ip_network("172.16.0.0/12"), ip_network("192.0.2.9/32"), ip_network("2001:db8:e::/48")),
    random_fully=True,
    forward_rules=True,
    resync_s=5,
    peer_filter=True,
)
VXLAN = Tunnel(8472, 1)


def run(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def rules():
    """Everything there is, with the handles that a rewritten rule would not keep."""
    return run("nft", "-a", "list", "ruleset")


def saved():
    lines = (run("iptables-save") + run("ip6tables-save")).splitlines()
    return [line for line in lines if not line.startswith("#")]


def ours():
    """What we own, in no order: a table or chain that was deleted comes back behind the others."""
    tables = run("nft", "list", "ruleset").split("\n}\n")
    return sorted(sorted(table.splitlines()) for table in tables if "netagent" in table), sorted(
        line for line in saved() if "NETAGENT" in line
    )


def peer(number):
    return f"peer-{number}", [ip_address("10.10.0.0") + number, ip_address("fd00:10::") + number]


def firewall(mode, *, settings=SETTINGS, tunnel=VXLAN, own=OWN, peers=3):
    made = Firewall(Policy(settings, mode, tunnel))
    made.plan(NETWORKS, own)
    made.plan_peers(peer(number + 1) for number in range(peers))
    return made


async def started(mode, **options):
    made = firewall(mode, **options)
    await made.sync(resync=True)
    return made


@pytest.fixture(params=list(Mode), ids=lambda mode: mode.value)
def mode(request):
    return request.param


def other(mode):
    return next(each for each in Mode if each is not mode)


async def test_before_the_first_plan_nothing_is_written():
    await Firewall(Policy(SETTINGS, Mode.NFTABLES, VXLAN)).sync(resync=True)
    assert rules() == ""


@pytest.mark.flannel("16")
async def test_a_restart_finds_its_rules_and_changes_nothing(mode):
    made = await started(mode)
    before = rules()
    again = await started(mode)
    assert rules() == before
    await again.sync(resync=True)
    assert rules() == before
    assert made.in_kernel
    assert again.in_kernel
    assert not sum(stats.repairs for stats in again.stats.values())


@pytest.mark.flannel("46", "A10")
async def test_each_mode_takes_the_others_place_and_leaves_nothing_of_it(mode):
    await started(mode)
    alone = ours()
    await started(other(mode))
    await started(mode)
    assert ours() == alone
    assert any("NETAGENT" in line for line in saved()) is (mode is Mode.IPTABLES)
    assert ("type nat hook postrouting priority srcnat + 1" in rules()) is (mode is Mode.NFTABLES)


@pytest.mark.flannel("16", "50")
async def test_cleanup_removes_what_is_ours_and_nothing_else(mode):
    run("nft", "add table ip foreign ; add chain ip foreign nat { type nat hook output priority 0; }")
    for program in ("iptables", "ip6tables"):
        run(program, "-t", "nat", "-A", "POSTROUTING", "-j", "RETURN")
        run(program, "-A", "FORWARD", "-m", "comment", "--comment", "not -j NETAGENT-FORWARD", "-j", "ACCEPT")
    before = run("nft", "list", "ruleset"), saved()
    made = await started(mode)
    await made.cleanup()
    await made.cleanup()
    assert (run("nft", "list", "ruleset"), saved()) == before


async def test_our_jumps_come_last_and_others_keep_their_place():
    run("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "192.0.2.1", "-j", "RETURN")
    await started(Mode.IPTABLES)
    jumps = [line for line in saved() if line.startswith("-A POSTROUTING")]
    assert jumps[0] == "-A POSTROUTING -s 192.0.2.1/32 -j RETURN"
    assert jumps[1] == "-A POSTROUTING -j NETAGENT-POSTROUTING"


DRIFT = {
    Mode.NFTABLES: [
        "flush ruleset",
        "delete table ip netagent",
        "flush chain ip netagent postrouting",
        "flush chain ip netagent input",
        "add rule ip netagent postrouting masquerade",
        "delete element ip netagent peers { 10.10.0.1 }",
        "add element ip6 netagent peers { fd00:66::66 }",
        "add chain ip netagent guest",
        "delete chain ip6 netagent forward ; add chain ip6 netagent forward { type filter hook forward priority 5; }",
        "delete chain ip netagent input ; delete set ip netagent peers",
    ],
    Mode.IPTABLES: [
        "flush ruleset",
        "flush chain ip nat POSTROUTING",
        "flush chain ip nat NETAGENT-POSTROUTING",
        "flush chain ip6 filter NETAGENT-FORWARD",
        "delete table ip6 filter",
        "delete table ip netagent",
        "add element ip netagent peers { 192.0.2.66 }",
    ],
}


@pytest.mark.flannel("16", "38")
@pytest.mark.parametrize(("mode", "drift"), [(mode, drift) for mode, listed in DRIFT.items() for drift in listed])
async def test_drift_is_repaired_and_counted(mode, drift):
    made = await started(mode)
    before = ours()
    run("nft", drift)
    await made.sync(resync=True)
    assert ours() == before
    assert sum(stats.repairs for stats in made.stats.values())


async def test_rules_in_another_order_and_rules_twice_are_drift():
    made = await started(Mode.IPTABLES)
    before = saved()
    chain = [line.split(" ", 2)[2] for line in before if line.startswith("-A NETAGENT-POSTROUTING")]
    run("iptables", "-t", "nat", "-D", "NETAGENT-POSTROUTING", *chain[1].split())
    run("iptables", "-t", "nat", "-A", "NETAGENT-POSTROUTING", *chain[1].split())
    run("iptables", "-t", "nat", "-A", "POSTROUTING", "-j", "NETAGENT-POSTROUTING")
    await made.sync(resync=True)
    assert saved() == before


FLANNEL_NFT = """
add table ip flannel-ipv4
add chain ip flannel-ipv4 postrtg { type nat hook postrouting priority srcnat; }
add rule ip flannel-ipv4 postrtg meta mark 0x4000 return
add chain ip flannel-ipv4 forward { type filter hook forward priority filter; }
add table ip6 flannel-ipv6
"""
FLANNEL_IPTABLES = [
    "-t nat -N FLANNEL-POSTRTG",
    "-t nat -A FLANNEL-POSTRTG -s 10.244.1.0/24 -d 10.244.0.0/16 -m comment --comment masq -j RETURN",
    "-t nat -A POSTROUTING -m comment --comment masq -j FLANNEL-POSTRTG",
    "-N FLANNEL-FWD",
    "-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment forward -j ACCEPT",
    "-A FORWARD -m comment --comment forward -j FLANNEL-FWD",
]


async def test_the_rules_of_a_flanneld_go_when_ours_are_in(mode):
    """In both of its modes, and the chain that is still jumped to as well."""
    run("nft", FLANNEL_NFT)
    for line in FLANNEL_IPTABLES:
        run("iptables", *line.split())
    run("iptables", "-N", "FLANNEL-OTHER")
    await started(mode)
    assert "flannel-ipv" not in rules()
    assert [line for line in saved() if "FLANNEL" in line] == [":FLANNEL-OTHER - [0:0]"]


async def test_peers_come_and_go_one_element_at_a_time(mode):
    made = await started(mode, peers=5000)
    assert run("nft", "list", "set", "ip", "netagent", "peers").count("10.10.") == 5000
    made.plan_peers([("peer-7", [])])
    await made.sync(resync=False)
    assert "10.10.0.7," not in run("nft", "list", "set", "ip", "netagent", "peers")
    made.plan_peers([peer(7)])
    await made.sync(resync=False)
    assert "10.10.0.7," in run("nft", "list", "set", "ip", "netagent", "peers")
    await made.sync(resync=True)
    assert not sum(stats.repairs for stats in made.stats.values())


async def test_a_peer_that_somebody_removed_before_us_costs_one_failed_sync(mode):
    made = await started(mode)
    run("nft", "delete element ip netagent peers { 10.10.0.1 }")
    made.plan_peers([("peer-1", [])])
    with pytest.raises(CommandError):
        await made.sync(resync=False)
    assert not made.in_kernel
    await made.sync(resync=False)
    assert made.in_kernel


async def test_another_own_subnet_replaces_the_rules_and_keeps_the_peers(mode):
    made = await started(mode)
    moved = {**OWN, Family.V4: ip_network("10.244.9.0/24")}
    made.plan(NETWORKS, moved)
    assert not made.in_kernel
    await made.sync(resync=False)
    fresh = run("nft", "list", "ruleset")
    assert "10.244.9.0/24" in fresh
    assert "10.244.1.0/24" not in fresh
    assert "10.10.0.1" in fresh


async def test_a_family_without_pods_has_no_rules(mode):
    await started(mode)
    made = Firewall(Policy(SETTINGS, mode, VXLAN))
    made.plan({Family.V4: NETWORKS[Family.V4]}, {Family.V4: OWN[Family.V4]})
    await made.sync(resync=True)
    assert "table ip6 netagent" not in rules()
    assert "NETAGENT" not in run("ip6tables-save")


async def test_a_family_that_is_given_up_takes_its_rules_along(mode):
    made = await started(mode)
    made.plan({Family.V6: NETWORKS[Family.V6]}, OWN)
    await made.sync(resync=False)
    assert "table ip netagent" not in rules()
    assert "table ip6 netagent" in rules()
    assert "NETAGENT" not in run("iptables-save")


async def test_all_off_leaves_nothing(mode):
    await started(mode)
    bare = replace(SETTINGS, ip_masq=False, forward_rules=False, peer_filter=False)
    await started(mode, settings=bare)
    assert "netagent" not in rules()
    assert not [line for line in saved() if "NETAGENT" in line]


@pytest.mark.parametrize("family", Family)
async def test_this_host_takes_random_ports_and_asking_changes_nothing(family):
    assert await nft_takes_fully_random(family)
    assert await iptables_takes_random_fully(family)
    assert rules() == ""


@pytest.mark.parametrize("variant", Variant)
@pytest.mark.parametrize("family", Family)
async def test_both_variants_of_iptables_print_our_rules_as_we_write_them(family, variant):
    pods = Pods(NETWORKS[family], OWN[family])
    objects = chain_objects(Policy(SETTINGS, Mode.IPTABLES, None), pods, fully_random=True)
    chains = IptablesChains(family, owned(FIRST), variant)
    await reconcile(lambda: objects, chains)
    assert not diff(objects, await chains.dump())
    await chains.apply(Delta(drop=dict(objects)))
    assert await chains.dump() == {}
