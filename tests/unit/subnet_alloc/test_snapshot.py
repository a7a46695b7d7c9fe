from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlloop.family import Family
from subnet_alloc.codec import render_attrs
from subnet_alloc.model import LeaseAttrs
from subnet_alloc.registry import Batch, Listing, Record
from subnet_alloc.snapshot import LeaseSnapshot

ONE, TWO = "10.5.1.0-24", "10.5.2.0-24"


def value(number=1, mac="82:4b:b6:2f:54:4e"):
    return render_attrs(LeaseAttrs({Family.V4: ip_address(f"1.2.3.{number}")}, "vxlan", {Family.V4: {"VtepMAC": mac}}))


def record(key, content, revision=1):
    return Record(key, content, revision, 7)


def snapshot_of(*records, revision=10):
    return LeaseSnapshot.of(Listing(revision, records))


def test_a_listing_gives_leases_by_key():
    snapshot = snapshot_of(record(ONE, value(1)), record(TWO, value(2)))
    assert snapshot.revision == 10
    assert set(snapshot.leases) == {ONE, TWO}
    assert snapshot.leases[ONE].subnets == {Family.V4: ip_network("10.5.1.0/24")}


def test_a_renewal_with_the_same_value_changes_nothing():
    snapshot = snapshot_of(record(ONE, value(1)))
    assert snapshot.apply(Batch(11, put=(record(ONE, value(1), 11),))) == frozenset()
    assert snapshot.records[ONE].revision == 11
    assert snapshot.revision == 11


def test_the_same_lease_in_other_words_changes_nothing():
    snapshot = snapshot_of(record(ONE, b'{"PublicIP":"1.2.3.4","BackendType":"vxlan"}'))
    assert not snapshot.apply(Batch(11, put=(record(ONE, b'{"backendtype":"vxlan", "publicip":"1.2.3.4"}', 11),)))


def test_a_new_mac_is_a_change():
    snapshot = snapshot_of(record(ONE, value(1)), record(TWO, value(2)))
    assert snapshot.apply(Batch(11, put=(record(ONE, value(1, "02:00:00:00:00:01"), 11),))) == {ONE}


@pytest.mark.flannel("37", "A5")
def test_a_new_mac_is_a_change_also_when_listed_again():
    snapshot = snapshot_of(record(ONE, value(1)), record(TWO, value(2)))
    listing = Listing(90, (record(ONE, value(1, "02:00:00:00:00:01"), 80), record(TWO, value(2), 85)))
    assert snapshot.replace(listing) == {ONE}


def test_what_a_listing_does_not_hold_is_gone():
    snapshot = snapshot_of(record(ONE, value(1)), record("junk", b""))
    assert snapshot.replace(Listing(12, ())) == {ONE}
    assert not snapshot.records
    assert not snapshot.skipped


@pytest.mark.flannel("31", "A1")
def test_a_malformed_record_is_skipped_and_named_and_the_rest_goes_on():
    snapshot = snapshot_of(record(ONE, value(1)), record("junk10.5.9.0-24", value(9)), record(TWO, b"{"))
    assert set(snapshot.leases) == {ONE}
    assert set(snapshot.skipped) == {"junk10.5.9.0-24", TWO}
    assert str(snapshot.skipped[TWO]).startswith(f"{TWO}: ")


@pytest.mark.flannel("A1")
def test_a_lease_whose_value_turns_malformed_stays_in_force_until_mended():
    snapshot = snapshot_of(record(ONE, value(1)))
    before = snapshot.leases[ONE]
    assert not snapshot.apply(Batch(11, put=(record(ONE, b"garbage", 11),)))
    assert snapshot.leases[ONE] == before
    assert "stays in force" in snapshot.skipped[ONE].reason
    assert snapshot.apply(Batch(12, put=(record(ONE, value(2), 12),))) == {ONE}
    assert not snapshot.skipped


def test_a_lease_mended_to_what_it_was_changes_nothing():
    snapshot = snapshot_of(record(ONE, value(1)))
    snapshot.apply(Batch(11, put=(record(ONE, b"garbage", 11),)))
    assert not snapshot.apply(Batch(12, put=(record(ONE, value(1), 12),)))
    assert not snapshot.skipped


def test_a_malformed_record_that_is_deleted_takes_its_old_lease_along():
    snapshot = snapshot_of(record(ONE, value(1)))
    snapshot.apply(Batch(11, put=(record(ONE, b"garbage", 11),)))
    assert snapshot.apply(Batch(12, removed=(ONE,))) == {ONE}
    assert not snapshot.leases
    assert not snapshot.skipped


def test_a_key_nobody_knew_may_be_removed():
    assert not snapshot_of().apply(Batch(11, removed=(ONE,)))


def test_subnets_of_unreadable_values_are_taken_too():
    snapshot = snapshot_of(record(ONE, value(1)), record(TWO, b"{"), record("junk", b"{"))
    assert sorted(str(subnets[Family.V4]) for subnets in snapshot.taken()) == ["10.5.1.0/24", "10.5.2.0/24"]


KEYS = st.sampled_from([ONE, TWO, "10.5.3.0-24", "10.5.3.0-24&fc00::-64", "junk", "10.5.1.5-24"])
VALUES = st.integers(1, 3).map(value)


@st.composite
def histories(draw):
    """Batches as a registry makes them: a key once in each, put or removed."""
    batches = []
    for revision in range(1, draw(st.integers(1, 8))):
        happened = draw(st.dictionaries(KEYS, st.none() | VALUES, max_size=4))
        put = tuple(record(key, content, revision) for key, content in happened.items() if content is not None)
        batches.append(Batch(revision, put, tuple(key for key, content in happened.items() if content is None)))
    return batches


@given(histories())
def test_applying_batches_gives_what_listing_gives(batches):
    snapshot, records = LeaseSnapshot(), {}
    for batch in batches:
        before = dict(snapshot.leases)
        changed = snapshot.apply(batch)
        records.update({one.key: one for one in batch.put})
        records = {key: one for key, one in records.items() if key not in batch.removed}
        listed = LeaseSnapshot.of(Listing(batch.revision, tuple(records.values())))
        assert (snapshot.leases, snapshot.skipped, snapshot.records) == (listed.leases, listed.skipped, listed.records)
        assert changed == {key for key in before.keys() | listed.leases if before.get(key) != listed.leases.get(key)}
