from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.annotations import read_balance, read_drain_timeout, read_weights
from proxy.frontends import Balance
from proxy.objects import RefusedError


def weights(text):
    """What was read, and what was refused."""
    refused = []
    return read_weights(text, refused.append), refused


@pytest.mark.parametrize("balance", Balance)
def test_a_balance_is_read_by_its_name(balance):
    assert read_balance(balance.value, frozenset(Balance)) is balance


@pytest.mark.parametrize("text", ["", "fair", "Random", "random ", "random\x1b"])
def test_what_is_no_balance_is_refused_and_the_choices_are_named(text):
    with pytest.raises(RefusedError, match=r"is none of random, weighted$") as caught:
        read_balance(text, frozenset({Balance.WEIGHTED, Balance.RANDOM}))
    assert str(caught.value).isprintable()


def test_a_balance_that_the_mode_does_not_have_is_refused():
    with pytest.raises(RefusedError, match=r"^annotation nodenet\.io/balance: consistent is none of random$"):
        read_balance("consistent", frozenset({Balance.RANDOM}))


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("1h30m", 5400), ("45", 45), ("0", 0), ("1ms", 1), ("1.2s", 2)]
)
def test_a_drain_timeout_is_a_duration_or_seconds(text, seconds):
    assert read_drain_timeout(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "-5s", "1d", "5 m", "9" * 30, "1s; drop", "\x1b", "٣"])
def test_what_is_no_drain_timeout_is_refused(text):
    with pytest.raises(RefusedError, match=r"^annotation nodenet\.io/drain-timeout: .*is no duration") as caught:
        read_drain_timeout(text)
    assert str(caught.value).isprintable()


def test_weights_are_for_addresses_and_zones():
    read, refused = weights("10.244.1.5=3, zone-a=2,,fd00::5 = 0, eu_west.1=1000,")
    assert read == {ip_address("10.244.1.5"): 3, "zone-a": 2, ip_address("fd00::5"): 0, "eu_west.1": 1000}
    assert refused == []


@pytest.mark.parametrize(
    "bad", ["zone-b", "zone-b=", "zone-b=-1", "zone-b=1001", "zone-b=1.5", "zone-b=a", "=3", "==3"]
)
def test_a_bad_weight_is_named_and_the_others_hold(bad):
    read, refused = weights(f"zone-a=2,{bad},10.0.0.1=3")
    assert read == {"zone-a": 2, ip_address("10.0.0.1"): 3}
    assert [reason.startswith("annotation nodenet.io/weights: ") for reason in refused] == [True]


@pytest.mark.parametrize(
    "key", ["zone b", "zone;b", "$(id)", "{x}", "127.0.0.1 }", "-a", "a" * 64, "::1%e", "\x1b[31m"]
)
def test_a_weight_for_what_is_neither_address_nor_zone_is_named(key):
    read, refused = weights(f"{key}=3")
    assert (read, len(refused)) == ({}, 1)
    assert refused[0].isprintable()


def test_of_two_weights_for_one_key_the_first_holds():
    read, refused = weights("10.0.0.1=3,zone-a=1,010.0.0.1=4")
    assert read == {ip_address("10.0.0.1"): 3, "zone-a": 1}
    assert refused == ["annotation nodenet.io/weights: 10.0.0.1 is there twice; 3 is used"]


@given(st.text())
def test_any_text_gives_weights_within_bounds(text):
    read, refused = weights(text)
    assert all(0 <= weight <= 1000 for weight in read.values())
    assert all(reason.isprintable() for reason in refused)
