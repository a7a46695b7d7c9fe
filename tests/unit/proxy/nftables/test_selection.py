"""Which endpoint is in which slot."""

from collections import Counter
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlloop.family import Family
from proxy.frontends import Balance, Endpoint
from proxy.nftables.selection import MOST_SLOTS, TABLE_SLOTS, consistent, select, weighted


def endpoints(numbers, weights=None):
    listed = sorted(numbers)
    return [
        Endpoint(IPv4Address(number), 8080, is_local=False, weight=weight)
        for number, weight in zip(listed, weights or [1] * len(listed), strict=True)
    ]


several = st.sets(st.integers(1, 2**32 - 1), min_size=2, max_size=60).map(endpoints)


@settings(max_examples=60, deadline=None)
@given(several, st.data())
def test_one_endpoint_that_goes_takes_few_clients_along(before, data):
    gone = data.draw(st.sampled_from(before))
    after = [one for one in before if one is not gone]
    moved = sum(old != new for old, new in zip(consistent(before), consistent(after), strict=True))
    assert moved / TABLE_SLOTS <= 1 / len(before) + 0.05


@settings(max_examples=60, deadline=None)
@given(several)
def test_consistent_slots_are_evenly_taken(some):
    taken = Counter(consistent(some))
    assert taken.keys() == set(some)
    assert max(taken.values()) - min(taken.values()) <= 1


@given(several, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_what_a_slot_holds_does_not_depend_on_who_else_was_there_before(some, chance):
    """Two nodes that learned of the endpoints in another order send a client to the same one."""
    shuffled = list(some)
    chance.shuffle(shuffled)
    assert consistent(sorted(shuffled, key=lambda one: (one.address, one.port))) == consistent(some)


WEIGHTS = {
    "equal": ([5, 5, 5], [1, 1, 1]),
    "three to one": ([3, 1], [3, 1]),
    "by their ratio": ([1000, 500], [2, 1]),
    "none for some": ([2, 0, 4], [1, 0, 2]),
    "none for all": ([0, 0], [1, 1]),
    "rounded": ([1000, 999, 1], [128, 128, 1]),
}


@pytest.mark.parametrize("how", WEIGHTS)
def test_weights_are_shares_of_slots(how):
    weights, wanted = WEIGHTS[how]
    some = endpoints(range(1, len(weights) + 1), weights)
    taken = Counter(weighted(some))
    assert [taken[one] for one in some] == wanted


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40))
def test_weights_need_few_slots_and_leave_nobody_out(weights):
    some = endpoints(range(1, len(weights) + 1), weights)
    slots = weighted(some)
    assert len(slots) <= MOST_SLOTS + len(some)
    if any(weights):
        assert set(slots) == {one for one in some if one.weight}
        for one in some:
            assert abs(slots.count(one) / len(slots) - one.weight / sum(weights)) < 0.1


@pytest.mark.parametrize("balance", Balance)
def test_one_endpoint_needs_no_choice(balance):
    (only,) = endpoints([7])
    chosen = select(Family.V4, balance, [only])
    assert chosen.draw == "numgen random mod 1"
    assert chosen.slots == (only,)


@pytest.mark.parametrize("family", Family)
def test_a_hash_is_the_same_on_every_node(family):
    """Without a seed in the rule the kernel makes one up."""
    for balance in Balance.SOURCE_HASH, Balance.CONSISTENT:
        drawn = select(family, balance, endpoints([1, 2, 3]))
        assert drawn.draw == f"jhash {family.nft} saddr mod {len(drawn.slots)} seed 0x6e6f6465"
