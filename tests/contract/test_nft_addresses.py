"""Addresses go into a set and out of it without a program; what cannot be done so is nft's."""

import asyncio

import pytest

from controlloop import command
from controlloop.command import CommandError, own_processes
from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.nft.addresses import MOST, change, only_addresses
from controlloop.nft.kernel import NftTable
from controlloop.nft.monitor import RulesetMonitor
from controlloop.nft.state import Container, Key
from controlloop.reconcile import reconcile

pytestmark = pytest.mark.usefixtures("netns")

TYPE = {Family.V4: "ipv4_addr", Family.V6: "ipv6_addr"}
FORM = {Family.V4: "10.0.{}.{}", Family.V6: "fd00:{:x}::{:x}"}


@pytest.fixture(params=list(Family), ids=lambda family: family.nft)
def family(request):
    return request.param


@pytest.fixture
def constant(family):
    return {Key("container", name): Container("set", TYPE[family], f"type {TYPE[family]}") for name in ("one", "two")}


@pytest.fixture
async def table(family, constant):
    table = NftTable(family, "ours", lambda: constant)
    await reconcile(lambda: constant, table)
    return table


def elements(family, name, *numbers):
    return {Key("element", name, FORM[family].format(number // 250 + 1, number % 250 + 1)): "" for number in numbers}


@pytest.fixture
def no_nft(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "SEARCH_PATH", str(tmp_path))


async def test_addresses_of_two_sets_come_and_go_in_one_transaction(family, table, constant, no_nft, monkeypatch):
    first = elements(family, "one", 1, 2) | elements(family, "two", 3)
    await table.apply(Delta(put=first))
    await table.apply(Delta(elements(family, "two", 4), elements(family, "one", 1)))
    monkeypatch.undo()
    assert await table.dump() == constant | elements(family, "one", 2) | elements(family, "two", 3, 4)


async def test_as_many_as_fit_are_put_at_once(family, table, constant, no_nft, monkeypatch):
    many = elements(family, "one", *range(MOST))
    await table.apply(Delta(put=many))
    monkeypatch.undo()
    assert await table.dump() == constant | many
    assert not only_addresses(Delta(put=elements(family, "one", *range(MOST + 1))), constant)


async def test_a_refused_change_is_left_to_nft_and_nothing_of_it_is_made(family, table, constant):
    gone = Delta(elements(family, "one", 1), elements(family, "two", 9))
    with pytest.raises(OSError, match="No such file"):
        change(family, "ours", gone)
    with pytest.raises(CommandError, match="No such file"):
        await table.apply(gone)
    assert await table.dump() == constant


async def test_who_watches_knows_that_it_was_us(family, table):
    async def told_of(change_made):
        monitor = RulesetMonitor(lambda change: change.table == "ours", own_processes)
        try:
            await change_made()
            monitor.drain()
            return monitor.touched
        finally:
            monitor.close()

    async def by_hand():
        (key,) = elements(family, "one", 2)
        text = f"add element {family.nft} ours one {{ {key.element} }}"
        process = await asyncio.create_subprocess_exec("nft", text)
        await process.wait()

    assert not await told_of(lambda: table.apply(Delta(put=elements(family, "one", 1))))
    assert await told_of(by_hand)


@pytest.mark.parametrize(
    "container",
    [
        Container("map", "ipv4_addr : verdict"),
        Container("set", "ipv4_addr . inet_service"),
        Container("set", "ipv4_addr", is_dynamic=True),
        Container("set", "ipv4_addr", counts=True),
        None,
    ],
)
def test_other_containers_are_nfts(container):
    delta = Delta(put={Key("element", "one", "10.0.0.1"): ""})
    assert only_addresses(delta, {Key("container", "one"): Container("set", "ipv4_addr")})
    assert not only_addresses(delta, {Key("container", "one"): container} if container else {})
    assert not only_addresses(Delta({**delta.put, Key("chain", "c"): ""}), {})
