"""What stands where in each mode, and what a peer costs."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.nft.state import Key
from netagent.config import FirewallSettings
from netagent.firewall.desired import Mode, Policy, chain_objects, table_objects
from netagent.firewall.nftables import TablePlan, Tunnel
from netagent.firewall.translation import Pods

PODS = Pods(ip_network("10.244.0.0/16"), ip_network("10.244.1.0/24"))
SETTINGS = FirewallSettings(
    ip_masq=True, masq_exclude=(), random_fully=True, forward_rules=True, resync_s=5, peer_filter=True
)
BARE = replace(SETTINGS, ip_masq=False, forward_rules=False, peer_filter=False)
VXLAN = Tunnel(8472, 1)
GATE = {Key("container", "peers"), Key("chain", "input")}


def policy(mode, *, tunnel=VXLAN, settings=SETTINGS):
    return Policy(settings, mode, tunnel)


def table(*arguments, **options):
    return table_objects(policy(*arguments, **options), PODS, fully_random=True)


def chains(*arguments, **options):
    return chain_objects(policy(*arguments, **options), PODS, fully_random=True)


def test_in_nftables_mode_all_stands_in_our_table():
    assert table(Mode.NFTABLES).keys() == {*GATE, Key("chain", "forward"), Key("chain", "postrouting")}
    assert chains(Mode.NFTABLES) == {}


def test_in_iptables_mode_only_the_gate_stands_in_our_table():
    assert table(Mode.IPTABLES).keys() == GATE
    assert chains(Mode.IPTABLES).keys() == {
        ("nat", "NETAGENT-POSTROUTING"),
        ("nat", "POSTROUTING"),
        ("filter", "NETAGENT-FORWARD"),
        ("filter", "FORWARD"),
    }


@pytest.mark.parametrize("mode", Mode)
def test_what_is_off_by_flag_is_not_there(mode):
    assert table(mode, settings=BARE) == {}
    assert chains(mode, settings=BARE) == {}
    only_forward = replace(BARE, forward_rules=True)
    assert len(table(mode, settings=only_forward)) + len(chains(mode, settings=only_forward)) == (
        1 if mode is Mode.NFTABLES else 2
    )


def test_a_backend_without_vxlan_has_no_gate():
    assert not GATE & table(Mode.NFTABLES, tunnel=None).keys()
    assert policy(Mode.NFTABLES, tunnel=None).guarded is None


def test_the_gate_knows_our_packets_by_port_and_network_identifier():
    chain = table(Mode.IPTABLES, tunnel=Tunnel(4789, 7))[Key("chain", "input")]
    assert [rule.text for rule in chain.rules] == [
        "udp dport 4789 @th,96,24 != 7 accept",
        "udp dport 4789 ip saddr != @peers drop",
    ]


@pytest.fixture
def plan():
    made = TablePlan(Family.V4)
    made.replace_constant(table(Mode.NFTABLES), Delta())
    for number in range(50):
        made.replace_peer(f"peer-{number}", [ip_address("10.10.0.0") + number], Delta())
    return made


def peer(text):
    return Key("element", "peers", text)


def test_a_peer_is_one_element(plan):
    delta = Delta()
    plan.replace_peer("new", [ip_address("192.0.2.1"), ip_address("fd00::1")], delta)
    assert (delta.put, delta.drop) == ({peer("192.0.2.1"): ""}, {})


def test_a_peer_that_moves_is_one_element_for_another(plan):
    delta = Delta()
    plan.replace_peer("peer-7", [ip_address("192.0.2.1")], delta)
    assert (delta.put, delta.drop) == ({peer("192.0.2.1"): ""}, {peer("10.10.0.7"): ""})


def test_an_address_of_two_leases_stays_until_both_are_gone(plan):
    delta = Delta()
    plan.replace_peer("twin", [ip_address("10.10.0.7")], delta)
    plan.replace_peer("peer-7", [], delta)
    assert not delta
    plan.replace_peer("twin", [], delta)
    assert delta.drop == {peer("10.10.0.7"): ""}


def test_another_own_subnet_leaves_the_peers_alone(plan):
    delta = Delta()
    moved = replace(PODS, own_subnet=ip_network("10.244.9.0/24"))
    plan.replace_constant(table_objects(policy(Mode.NFTABLES), moved, fully_random=True), delta)
    assert delta.put.keys() == {Key("chain", "postrouting")}


def test_an_address_is_written_as_nft_prints_it():
    made = TablePlan(Family.V6)
    made.replace_peer("odd", [ip_address("::ffff:192.0.2.1"), ip_address("fe80::1%x y")], Delta())
    assert made.objects.keys() == {peer("::ffff:192.0.2.1"), peer("fe80::1")}
