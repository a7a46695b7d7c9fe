import asyncio
from contextlib import aclosing
from ipaddress import ip_address, ip_network

import pytest
from deadline import PATIENCE_S

from controlloop.errors import UnavailableError
from controlloop.family import Family
from subnet_alloc import leasing
from subnet_alloc.allocate import NoFreeSubnetError
from subnet_alloc.codec import parse_config, render_attrs, render_key
from subnet_alloc.leasing import LeaseLostError, acquire, follow, keep
from subnet_alloc.memory import MemoryRegistry
from subnet_alloc.model import LeaseAttrs

CONFIG = parse_config(b'{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}')
OTHER_CONFIG = parse_config(b'{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan"}}')
TINY_CONFIG = parse_config(b'{"Network":"10.5.0.0/16","SubnetMin":"10.5.1.0","SubnetMax":"10.5.2.0"}')
V6_CONFIG = parse_config(b'{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00:5::/48"}')


def attrs(number=1, mac="82:4b:b6:2f:54:4e"):
    return LeaseAttrs({Family.V4: ip_address(f"192.168.0.{number}")}, "vxlan", {Family.V4: {"VtepMAC": mac}})


def v4(text):
    return {Family.V4: ip_network(text)}


def first(candidates):
    return candidates[0]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def registry(clock):
    return MemoryRegistry(clock=clock)


async def got(registry, wanted=None, *, previous=None, config=CONFIG):
    return await acquire(registry, wanted or attrs(), previous=previous, config=config, choose=first)


async def keys(registry):
    return [record.key for record in (await registry.list()).records]


# -- acquire --------------------------------------------------------------------------------------------------------


@pytest.mark.flannel("4")
async def test_a_new_node_gets_a_free_subnet_in_range(registry):
    own = await got(registry)
    assert own.lease.subnets == v4("10.5.1.0/24")
    assert own.lease.attrs == attrs()
    assert (await registry.list()).records == (own.record,)
    assert own.record.value == render_attrs(attrs())


@pytest.mark.flannel("4")
async def test_the_same_public_ip_gets_the_same_subnet_and_nothing_is_written(registry):
    before = await got(registry)
    assert await got(registry) == before


@pytest.mark.flannel("8")
async def test_a_renewed_lease_lives_on(registry, clock):
    await got(registry)
    clock.now = 86_000
    await got(registry)
    clock.now = 100_000
    assert await keys(registry) == ["10.5.1.0-24"]


async def test_a_new_mac_is_written_in_place(registry):
    before = await got(registry)
    after = await got(registry, attrs(mac="02:00:00:00:00:01"))
    assert after.record.key == before.record.key
    assert after.record.lease_id == before.record.lease_id
    assert after.record.revision > before.record.revision
    assert after.record.value == render_attrs(attrs(mac="02:00:00:00:00:01"))


@pytest.mark.flannel("4")
async def test_the_previous_subnet_is_taken_when_free(registry):
    assert (await got(registry, previous=v4("10.5.72.0/24"))).lease.subnets == v4("10.5.72.0/24")


async def test_the_previous_subnet_is_not_taken_from_another_node(registry):
    await got(registry, attrs(2), previous=v4("10.5.72.0/24"))
    assert (await got(registry, previous=v4("10.5.72.0/24"))).lease.subnets == v4("10.5.1.0/24")


@pytest.mark.flannel("4")
@pytest.mark.parametrize("text", ["10.6.72.0/24", "10.5.72.0/25", "10.5.0.0/24"])
async def test_the_previous_subnet_is_ignored_when_it_does_not_fit(registry, text):
    assert (await got(registry, previous=v4(text))).lease.subnets == v4("10.5.1.0/24")


@pytest.mark.flannel("4")
async def test_another_network_forces_a_new_subnet_and_the_old_lease_goes(registry):
    await got(registry)
    assert (await got(registry, config=OTHER_CONFIG)).lease.subnets == v4("10.6.1.0/24")
    assert await keys(registry) == ["10.6.1.0-24"]


@pytest.mark.flannel("36", "A7")
async def test_a_reservation_stays_a_reservation(registry, clock):
    reserved = await registry.create("10.5.9.0-24", b'{"PublicIP":"192.168.0.1"}', 0)
    own = await got(registry)
    assert (own.record.key, own.record.lease_id) == (reserved.key, 0)
    assert own.record.value == render_attrs(attrs())
    assert await got(registry) == own
    clock.now = 1_000_000
    assert await keys(registry) == ["10.5.9.0-24"]


async def test_a_lease_without_readable_value_keeps_others_away(registry):
    await registry.create("10.5.1.0-24", b"garbage", 0)
    assert (await got(registry)).lease.subnets == v4("10.5.2.0/24")


@pytest.mark.flannel("A6")
async def test_nodes_with_ipv6_only_are_told_apart(registry):
    wanted = [LeaseAttrs({Family.V6: ip_address(f"fd00::{number}")}, "vxlan") for number in (1, 2)]
    owned = [await got(registry, one, config=V6_CONFIG) for one in wanted]
    assert await keys(registry) == ["0.0.0.0-0&fc00:5:0:1::-64", "0.0.0.0-0&fc00:5:0:2::-64"]
    assert (await got(registry, wanted[1], config=V6_CONFIG)) == owned[1]


async def test_a_full_network_is_an_error_that_time_may_mend(registry):
    await got(registry, attrs(1), config=TINY_CONFIG)
    await got(registry, attrs(2), config=TINY_CONFIG)
    with pytest.raises(NoFreeSubnetError, match=r"10.5.0.0/16 has no free /24 \(2 leased\)"):
        await got(registry, attrs(3), config=TINY_CONFIG)


async def test_an_unreachable_registry_is_told(registry):
    registry.stop()
    with pytest.raises(UnavailableError):
        await got(registry)


class RacyRegistry(MemoryRegistry):
    """Somebody else creates the key just before us, for some rounds."""

    def __init__(self, rounds):
        super().__init__()
        self.rounds = rounds

    async def create(self, key, value, ttl_s):
        if self.rounds:
            self.rounds -= 1
            await super().create(key, render_attrs(attrs(100 + self.rounds)), ttl_s)
        return await super().create(key, value, ttl_s)


@pytest.mark.flannel("30", "A2")
async def test_after_a_lost_race_the_next_free_subnet_is_taken():
    assert (await got(RacyRegistry(rounds=2))).lease.subnets == v4("10.5.3.0/24")


async def test_endless_lost_races_end_with_an_error():
    with pytest.raises(UnavailableError, match="others were faster 30 times in a row"):
        await got(RacyRegistry(rounds=100))


async def test_a_lease_that_ends_while_it_is_taken_over_is_acquired_anew(registry, clock):
    class LosesLease(MemoryRegistry):
        async def keep_alive(self, record):
            clock.now += 100_000
            return await super().keep_alive(record)

    registry = LosesLease(clock=clock)
    before = await got(registry)
    after = await got(registry)
    assert after.lease == before.lease
    assert after.record.lease_id != before.record.lease_id


async def test_two_nodes_that_start_together_get_distinct_subnets():
    registry = MemoryRegistry()
    owned = await asyncio.gather(*(got(registry, attrs(number)) for number in range(1, 21)))
    assert len({render_key(own.lease.subnets) for own in owned}) == 20


# -- keep -----------------------------------------------------------------------------------------------------------


def clock_that_stands():
    """For leases that are renewed within the second, or later on a machine that has no time."""
    return 0.0


async def keeps(registry, own, renewals):
    """Run `keep` until the registry has seen so many renewals."""
    seen = asyncio.Event()
    asked = []

    async def keep_alive(record):
        asked.append(record)
        if len(asked) >= renewals:
            seen.set()
        return await MemoryRegistry.keep_alive(registry, record)

    registry.keep_alive = keep_alive
    task = asyncio.ensure_future(keep(registry, own))
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wait([task, asyncio.ensure_future(seen.wait())], return_when=asyncio.FIRST_COMPLETED)
    return task


@pytest.mark.flannel("8")
async def test_a_lease_is_renewed_again_and_again():
    registry = MemoryRegistry(clock=clock_that_stands)
    own = await acquire(registry, attrs(), previous=None, config=CONFIG, choose=first, ttl_s=1)
    task = await keeps(registry, own, renewals=5)
    assert not task.done()
    assert await keys(registry) == [own.record.key]
    task.cancel()


@pytest.mark.parametrize(("margin_s", "pause_s"), [(0, 28_800), (3_600, 28_800), (86_340, 60), (90_000, 1)])
async def test_a_margin_makes_renewals_come_earlier(registry, monkeypatch, margin_s, pause_s):
    await got(registry)
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)
        raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await keep(registry, await got(registry), margin_s)
    assert pauses == [pause_s]


@pytest.mark.flannel("35")
async def test_a_lost_lease_is_told(registry, clock):
    own = await got(registry)
    clock.now = 100_000
    with pytest.raises(LeaseLostError, match=r"lease of 10.5.1.0-24 is lost"):
        await keep(registry, own)


@pytest.mark.flannel("A4")
async def test_renewal_outlives_an_unreachable_registry(registry):
    own = await got(registry)
    registry.stop()
    task = await keeps(registry, own, renewals=2)
    assert not task.done()
    task.cancel()


@pytest.mark.flannel("36", "A7")
async def test_a_reservation_needs_no_renewal(registry):
    await registry.create("10.5.9.0-24", render_attrs(attrs()), 0)
    own = await got(registry)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await keep(registry, own)


async def puts(registry, own, count):
    """The records that watchers see while the lease is kept, until there are so many."""
    seen = []
    task = asyncio.ensure_future(keep(registry, own))
    async with asyncio.timeout(PATIENCE_S), aclosing(registry.watch(own.record.revision - 1)) as batches:
        async for batch in batches:
            seen += batch.put
            if len(seen) >= count:
                break
    assert not task.done()
    task.cancel()
    return seen


async def test_a_new_lease_is_written_once_more_for_those_who_missed_it(monkeypatch):
    """flanneld up to 0.20 misses a put that follows a delete within milliseconds."""
    monkeypatch.setattr(leasing, "REPEAT_S", 0.05)
    registry = MemoryRegistry(clock=clock_that_stands)
    before = await acquire(registry, attrs(), previous=None, config=CONFIG, choose=first, ttl_s=1)
    await registry.remove(before.record)
    own = await acquire(registry, attrs(), previous=before.lease.subnets, config=CONFIG, choose=first, ttl_s=1)
    one, two = await puts(registry, own, count=2)
    assert (one.key, one.value, one.lease_id) == (two.key, two.value, two.lease_id)
    assert two.key == before.record.key


async def test_a_lease_that_was_there_is_not_written_again(monkeypatch):
    monkeypatch.setattr(leasing, "REPEAT_S", 0.0)
    registry = MemoryRegistry(clock=clock_that_stands)
    await acquire(registry, attrs(), previous=None, config=CONFIG, choose=first, ttl_s=1)
    own = await acquire(registry, attrs(), previous=None, config=CONFIG, choose=first, ttl_s=1)
    task = await keeps(registry, own, renewals=3)
    assert (await registry.list()).records == (own.record,)
    task.cancel()


async def test_a_new_lease_that_somebody_changed_meanwhile_is_lost(monkeypatch):
    monkeypatch.setattr(leasing, "REPEAT_S", 0.0)
    registry = MemoryRegistry(clock=clock_that_stands)
    own = await acquire(registry, attrs(), previous=None, config=CONFIG, choose=first, ttl_s=1)
    await registry.update(own.record, render_attrs(attrs(2)), 1)
    with pytest.raises(LeaseLostError, match=r"10.5.1.0-24"):
        await keep(registry, own)


# -- follow ---------------------------------------------------------------------------------------------------------


async def step(following):
    async with asyncio.timeout(PATIENCE_S):
        snapshot, changed = await anext(following)
    return set(snapshot.leases), changed


@pytest.fixture
async def following(registry):
    async with aclosing(follow(registry)) as following:
        yield following


async def test_following_begins_with_a_listing_even_of_nothing(following):
    assert await step(following) == (set(), frozenset())


@pytest.mark.flannel("7")
async def test_following_tells_what_changed(registry, following):
    await step(following)
    own = (await got(registry)).record
    assert await step(following) == ({own.key}, {own.key})
    own = await registry.update(own, own.value, 86_400)  # a renewal as flannel does it is no step
    await registry.remove(own)
    assert await step(following) == (set(), {own.key})


@pytest.mark.flannel("A1")
async def test_a_malformed_record_is_logged_and_changes_no_lease(registry, following, caplog):
    await step(following)
    junk = await registry.create("junk", b"", 0)
    assert await step(following) == (set(), frozenset())
    own = (await got(registry)).record
    assert await step(following) == ({own.key}, {own.key})
    await registry.remove(junk)
    assert await step(following) == ({own.key}, frozenset())
    assert [record.fields["key"] for record in caplog.records if record.message == "lease skipped"] == ["junk"]


async def test_a_lease_that_expires_goes(registry, clock, following):
    own = (await got(registry)).record
    await step(following)
    clock.now = 100_000
    registry.tick()
    assert await step(following) == (set(), {own.key})


@pytest.mark.flannel("9", "37", "A5")
async def test_changes_behind_a_compaction_are_found_by_listing(registry, following):
    await step(following)
    gone = await got(registry, attrs(1))
    changed = await got(registry, attrs(2))
    await step(following)
    await registry.remove(gone.record)
    await registry.update(changed.record, render_attrs(attrs(2, "02:00:00:00:00:01")), 86_400)
    registry.compact()
    assert await step(following) == ({changed.record.key}, {gone.record.key, changed.record.key})


async def test_an_outage_leaves_the_leases_and_is_caught_up(registry, following):
    own = (await got(registry)).record
    assert await step(following) == ({own.key}, {own.key})
    waiting = asyncio.ensure_future(step(following))
    await asyncio.sleep(0)
    registry.stop()
    await asyncio.sleep(0)
    assert not waiting.done()
    registry.start()
    other = (await got(registry, attrs(2))).record
    assert await waiting == ({own.key, other.key}, {other.key})


@pytest.mark.flannel("A3")
async def test_following_begins_when_the_registry_answers(registry, following):
    registry.stop()
    waiting = asyncio.ensure_future(step(following))
    await asyncio.sleep(0)
    registry.start()
    assert await waiting == (set(), frozenset())
