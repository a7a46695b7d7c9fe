"""Applying the difference gives what is desired; the difference of equals is nothing; a ledger agrees with both."""

from hypothesis import given
from hypothesis import strategies as st

from controlloop.delta import Delta, Ledger, diff

KEYS = st.integers(0, 8)
STATES = st.dictionaries(KEYS, st.text("ab", min_size=1, max_size=2))


@given(STATES, STATES)
def test_applying_the_difference_gives_the_desired_state(desired, actual):
    delta = diff(desired, actual)
    delta.apply_to(actual)
    assert actual == desired


@given(STATES)
def test_the_difference_of_equals_is_empty(state):
    assert not diff(state, dict(state))


@given(STATES, STATES)
def test_a_delta_says_what_it_replaces(desired, actual):
    delta = diff(desired, actual)
    assert all(actual[key] == value for key, value in delta.drop.items())
    assert len(delta) == sum(desired.get(key) != actual.get(key) for key in desired.keys() | actual.keys())


# Owners may share an object, but never compete for a key: here the key decides the value unless it is the owner's own.
OWNED = st.dictionaries(
    st.sampled_from("abc"), st.dictionaries(st.integers(0, 3), st.sampled_from(["shared"]), max_size=4)
)
STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.sets(st.integers(0, 3)), st.integers(0, 1)), max_size=12)


@given(STEPS)
def test_a_ledger_holds_what_its_owners_want_and_reports_each_change(steps):
    ledger = Ledger()
    kernel, wants = {}, {}
    for owner, shared, version in steps:
        wants[owner] = dict.fromkeys((("shared", key) for key in shared), "same") | {("own", owner): version}
        delta = Delta()
        ledger.replace(owner, wants[owner], delta)
        delta.apply_to(kernel)
    expected = {key: value for objects in wants.values() for key, value in objects.items()}
    assert kernel == ledger.objects == expected


@given(STEPS)
def test_one_delta_over_many_replacements_is_their_sum(steps):
    ledger, delta = Ledger(), Delta()
    for owner, shared, version in steps:
        objects = dict.fromkeys((("shared", key) for key in shared), "same") | {("own", owner): version}
        ledger.replace(owner, objects, delta)
    kernel = {}
    delta.apply_to(kernel)
    assert kernel == ledger.objects
    assert not delta.drop


@given(STEPS)
def test_an_owner_that_lets_go_leaves_nothing(steps):
    ledger = Ledger()
    for owner, shared, _ in steps:
        ledger.replace(owner, dict.fromkeys(shared, "same"), Delta())
    for owner in "abc":
        ledger.replace(owner, {}, Delta())
    assert ledger.objects == {}
    assert list(ledger.owners()) == []


def test_a_key_that_moves_to_another_owner_in_one_batch_ends_with_the_new_value():
    """Two Services swap a claimed address: in whatever order they are planned, the new owner's value stands."""
    for order in (("old", "new"), ("new", "old")):
        ledger = Ledger()
        ledger.replace("old", {"key": 1}, Delta())
        delta = Delta()
        wants = {"old": {}, "new": {"key": 2}}
        for owner in order:
            ledger.replace(owner, wants[owner], delta)
        assert ledger.objects == {"key": 2}
        assert (delta.drop, delta.put) == ({"key": 1}, {"key": 2})


def test_a_change_that_is_taken_back_leaves_no_delta():
    delta = Delta()
    delta.record("key", 1, 2)
    delta.record("key", 2, 1)
    assert not delta
