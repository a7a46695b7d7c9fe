from ipaddress import ip_address

import pytest

from controlloop.family import Family
from subnet_alloc.codec import parse_config, parse_key, render_attrs
from subnet_alloc.lessor import RegistryLessor
from subnet_alloc.memory import MemoryRegistry
from subnet_alloc.model import LeaseAttrs

CONFIG = parse_config(b'{"Network":"10.5.0.0/16"}')
PREVIOUS = parse_key("10.5.77.0-24")


def attrs(address="192.168.0.1"):
    return LeaseAttrs({Family.V4: ip_address(address)}, "vxlan")


@pytest.fixture
def registry():
    return MemoryRegistry()


@pytest.fixture
def lessor(registry):
    return RegistryLessor(registry, lambda: PREVIOUS, min)


async def test_the_subnet_of_before_the_start_is_asked_for_again(lessor):
    assert (await lessor.acquire(attrs(), config=CONFIG)).lease.subnets == PREVIOUS
    await lessor.announce()
    assert await lessor.wanted_public_ip() == {}


async def test_a_node_that_moved_keeps_its_subnet(registry, lessor):
    before = await lessor.acquire(attrs(), config=CONFIG)
    after = await lessor.acquire(attrs("192.168.0.2"), config=CONFIG)
    assert after.lease.subnets == PREVIOUS
    assert after.record.lease_id == before.record.lease_id
    assert (await registry.list()).records == (after.record,)


@pytest.mark.flannel("36")
async def test_a_reservation_stays_one_when_its_node_moves(registry, lessor):
    await registry.create("10.5.9.0-24", render_attrs(attrs()), 0)
    await lessor.acquire(attrs(), config=CONFIG)
    after = await lessor.acquire(attrs("192.168.0.2"), config=CONFIG)
    assert (after.record.key, after.record.lease_id) == ("10.5.9.0-24", 0)


async def test_a_node_that_moved_while_somebody_took_its_subnet_gets_another(registry, lessor):
    before = await lessor.acquire(attrs(), config=CONFIG)
    await registry.update(before.record, render_attrs(attrs("192.168.0.66")), 0)
    after = await lessor.acquire(attrs("192.168.0.2"), config=CONFIG)
    assert after.record.key == "10.5.1.0-24"
    assert len((await registry.list()).records) == 2


async def test_a_node_that_moved_keeps_its_subnet_when_its_record_has_another_revision(registry, lessor):
    before = await lessor.acquire(attrs(), config=CONFIG)
    await registry.update(before.record, before.record.value, 3600)
    after = await lessor.acquire(attrs("192.168.0.2"), config=CONFIG)
    assert after.lease.subnets == PREVIOUS
    assert len((await registry.list()).records) == 1
