from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iptables_ruleset import reached

from controlloop.delta import Delta
from controlloop.family import Family
from proxy.iptables.chains import MAX_NAME
from proxy.iptables.spaces import Addresses
from proxy.iptables.tree import INLINE, MAX_HEIGHT, Root, Tree

SERVICES = Root("nat", "NETPROXY-SERVICES")
ADDRESS = {Family.V4: IPv4Address, Family.V6: IPv6Address}

# Few bits in few places: prefixes are shared, and branch, at every length.
offsets = st.one_of(st.integers(0, 63), st.integers(0, 31).map(lambda bit: 1 << bit), st.integers(0, 2**16 - 1))
leaves = st.tuples(offsets.map(lambda offset: 0x0A600000 ^ offset), st.sampled_from([53, 80, 443]))


def rule(leaf, family=Family.V4):
    address, port = leaf
    return f"-d {ADDRESS[family](address)}/{family.bits} -p tcp -m tcp --dport {port} -j SERVED"


def build(leaves, family=Family.V4):
    tree = Tree(Addresses(family), SERVICES)
    for leaf in leaves:
        tree.insert(leaf[0], rule(leaf, family))
    tree.record(Delta())
    return tree


def depth(state, chain="NETPROXY-SERVICES"):
    below = [text.rpartition(" ")[2] for text in state["nat", chain]]
    return 1 + max((depth(state, name) for name in below if ("nat", name) in state), default=0)


@given(st.lists(st.tuples(leaves, st.booleans())))
def test_a_tree_changed_one_rule_at_a_time_equals_one_built_at_once(steps):
    """Each step adds a rule or takes it away; what the deltas say is what the tree holds."""
    tree, held = Tree(Addresses(Family.V4), SERVICES), set()
    seen = dict(tree.objects)
    for leaf, added in steps:
        if added == (leaf in held):
            continue
        (held.add if added else held.remove)(leaf)
        (tree.insert if added else tree.remove)(leaf[0], rule(leaf))
        delta = Delta()
        tree.record(delta)
        assert delta.drop.items() <= seen.items()
        delta.apply_to(seen)
    assert tree.objects == seen == build(sorted(held)).objects


@given(st.lists(leaves, unique=True), st.randoms())
def test_the_order_of_insertion_does_not_matter(held, random):
    shuffled = random.sample(held, len(held))
    assert build(held).objects == build(shuffled).objects


@given(st.lists(leaves, unique=True), leaves)
def test_a_packet_reaches_its_own_rule_and_no_other(held, other):
    state = build(held).objects
    for leaf in held:
        assert reached(state, "nat", "NETPROXY-SERVICES", leaf[0], port=leaf[1])[0] == [rule(leaf)]
    found = reached(state, "nat", "NETPROXY-SERVICES", other[0], port=other[1])[0]
    assert found == ([rule(other)] if other in held else [])


@given(st.sets(leaves, min_size=1))
def test_chains_are_short_and_their_names_fit_the_kernel(held):
    for (_, name), rules in build(held).objects.items():
        assert len(name) <= MAX_NAME
        assert len(rules) <= 32 * INLINE


@given(st.lists(leaves, unique=True))
def test_removing_everything_leaves_the_empty_root(held):
    tree = build(held)
    for leaf in held:
        tree.remove(leaf[0], rule(leaf))
    tree.record(Delta())
    assert tree.objects == {("nat", "NETPROXY-SERVICES"): ()}


def test_few_rules_need_no_chains():
    leaves = [(0x0A600001 + number, 80) for number in range(INLINE)]
    assert build(leaves).objects == {("nat", "NETPROXY-SERVICES"): tuple(rule(leaf) for leaf in leaves)}


def test_traffic_to_no_service_leaves_after_one_rule():
    state = build((0x0A600000 + 7 * number, 80) for number in range(5000)).objects
    assert reached(state, "nat", "NETPROXY-SERVICES", "192.0.2.1")[1] == 1


@pytest.mark.kube_proxy("gap 5.1-1")
def test_a_lookup_among_scattered_addresses_meets_few_rules():
    scattered = [(number * 0x9E3779B1 % 2**32, 80) for number in range(5000)]
    state = build(scattered).objects
    compared = [reached(state, "nat", "NETPROXY-SERVICES", address)[1] for address, _ in scattered[:200]]
    assert sum(compared) / len(compared) < 60


def test_one_more_among_thousands_changes_only_the_chains_on_its_path():
    tree = build((0x0A600000 + 7 * number, 80) for number in range(5000))
    delta = Delta()
    tree.insert(0x0A600003, rule((0x0A600003, 80)))
    tree.record(delta)
    assert 1 <= len(delta) <= 2


def test_many_ports_of_one_address_get_a_chain_of_their_own():
    state = build((0x0A600001, port) for port in range(20)).objects
    assert state["nat", "NETPROXY-SERVICES"] == ("-d 10.96.0.1/32 -j NETPROXY-10.96.0.1/32",)
    assert len(state["nat", "NETPROXY-10.96.0.1/32"]) == 20


@pytest.mark.parametrize("crowd", [0, 5000])
def test_addresses_chosen_to_branch_at_every_step_do_not_exceed_the_kernels_jump_stack(crowd):
    """The many ordinary services below keep their short way: only the chosen addresses are listed in the root."""
    services = 0xFD00 << 112
    chosen = [(services ^ 1 << 4 * step, 80) for step in range(32)]
    ordinary = [(services + 7 * number, 80) for number in range(crowd)]
    state = build(chosen + ordinary, Family.V6).objects
    assert depth(state) <= 1 + MAX_HEIGHT
    assert len(state["nat", "NETPROXY-SERVICES"]) <= 2 * len(chosen)
    for leaf in chosen + ordinary[:200]:
        assert reached(state, "nat", "NETPROXY-SERVICES", IPv6Address(leaf[0]))[0] == [rule(leaf, Family.V6)]


def test_a_rule_that_is_not_there_cannot_be_removed():
    tree = build([(0x0A600001, 80)])
    with pytest.raises(ValueError, match="not in list"):
        tree.remove(0x0A600001, rule((0x0A600001, 81)))
