"""How the etcd source reads keys and lives through a store that forgets or goes away."""

import asyncio

from builders import json, make_endpoint_slice, make_service

from controlloop.errors import CompactedError, UnavailableError
from controlloop.etcd import KeyValue, Listing, Page, WatchBatch
from proxy.objects import Kind
from proxy.sources.etcd import EtcdSource

WEB = "/nodenet/services/default/web"
SLICE = "/nodenet/endpointslices/default/web-1"


def stored(key, value=b"{}"):
    return KeyValue(key, value, 1, 0, 1)


def page(revision, *items, is_last=True):
    return Page(revision, items, is_last)


class ScriptedEtcd:
    """Answers each call with the next step: a page, a listing, an error, or the changes and the end of one watch."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.calls = []
        self.closed = False

    def _next(self):
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    async def list(self, prefix):
        self.calls.append(f"list {prefix}")
        return self._next()

    async def pages(self, prefix):
        self.calls.append(f"pages {prefix}")
        while True:
            page = self._next()
            yield page
            if page.is_last:
                return

    def unheard_s(self):
        return 0.0

    async def close(self):
        self.closed = True

    async def watch(self, prefix, after):
        self.calls.append(f"watch {prefix} after {after}")
        for change in self._next():
            if isinstance(change, Exception):
                raise change
            yield change
        await asyncio.Event().wait()


async def take(etcd, count, prefix="/nodenet"):
    batches = EtcdSource(etcd, prefix).batches()
    taken = [await anext(batches) for _ in range(count)]
    await batches.aclose()
    assert etcd.closed
    return taken


async def test_both_kinds_come_from_one_listing_and_then_from_one_watch():
    service, endpoint_slice = json(make_service()), json(make_endpoint_slice())
    etcd = ScriptedEtcd(page(7, stored(WEB, service)), [WatchBatch(8, (stored(SLICE, endpoint_slice),), (WEB,))])
    listed, changed = await take(etcd, 2)
    assert (listed.complete, changed.complete) == (True, True)
    assert [(each.kind, str(each.name), each.body) for each in listed.updates + changed.updates] == [
        (Kind.SERVICE, "default/web", service),
        (Kind.ENDPOINT_SLICE, "default/web-1", endpoint_slice),
        (Kind.SERVICE, "default/web", None),
    ]
    assert etcd.calls == ["pages /nodenet/", "watch /nodenet/ after 7"]


async def test_the_prefix_may_end_with_a_slash():
    etcd = ScriptedEtcd(page(7, stored("/a/services/x/y")))
    (listed,) = await take(etcd, 1, prefix="/a/")
    assert [str(each.name) for each in listed.updates] == ["x/y"]


async def test_siblings_are_ignored_and_malformed_keys_are_named_until_they_are_gone():
    bad = "/nodenet/services/default/web/\x1bmore"
    others = ["/nodenet/leases/10.5.1.0-24", "/nodenet/servicesx/a/b"]
    short = ["/nodenet/services", "/nodenet/services/web", "/nodenet/services//web", "/nodenet/endpointslices/default/"]
    etcd = ScriptedEtcd(
        page(7, *map(stored, [*others, *short, bad, WEB])),
        [WatchBatch(8, (), (bad,)), WatchBatch(9, (stored(bad),), tuple(short))],
    )
    listed, fewer, other = await take(etcd, 3)
    assert [str(each.name) for each in listed.updates] == ["default/web"]
    assert [each.name for each in listed.skipped] == [*short, r"/nodenet/services/default/web/\x1bmore"]
    assert listed.skipped[0].reason == "the key is not /nodenet/services/NAMESPACE/NAME"
    assert [each.name for each in fewer.skipped] == short
    assert [each.name for each in other.skipped] == [r"/nodenet/services/default/web/\x1bmore"]


async def test_a_watch_that_only_moves_on_gives_no_batch_but_is_where_the_next_begins():
    etcd = ScriptedEtcd(
        page(7),
        [WatchBatch(20, (), ()), UnavailableError("gone")],
        [WatchBatch(21, (stored(WEB),), ())],
    )
    batches = await take(etcd, 2)
    assert [len(each.updates) for each in batches] == [0, 1]
    assert etcd.calls == ["pages /nodenet/", "watch /nodenet/ after 7", "watch /nodenet/ after 20"]


async def test_pages_are_given_as_they_come_and_nothing_is_complete_before_the_last():
    etcd = ScriptedEtcd(page(7, stored(SLICE), is_last=False), page(7, stored(WEB)))
    batches = await take(etcd, 2)
    assert [(each.complete, len(each.updates)) for each in batches] == [(False, 1), (True, 1)]


async def test_a_listing_that_broke_off_is_made_whole_by_another():
    """What was on a page of the first one may have been deleted since."""
    etcd = ScriptedEtcd(page(7, stored(SLICE), is_last=False), UnavailableError("gone"), Listing(9, (stored(WEB),)))
    batches = await take(etcd, 2)
    assert [(each.complete, each.listed) for each in batches] == [(False, False), (True, True)]
    assert etcd.calls == ["pages /nodenet/", "list /nodenet/"]


async def test_a_store_that_forgot_is_listed_again():
    etcd = ScriptedEtcd(page(7), [CompactedError("compacted")], Listing(90, ()), [])
    assert [each.listed for each in await take(etcd, 2)] == [False, True]
    assert etcd.calls == ["pages /nodenet/", "watch /nodenet/ after 7", "list /nodenet/"]


async def test_a_store_that_is_away_is_waited_for_with_one_line(caplog):
    etcd = ScriptedEtcd(UnavailableError("no answer"), UnavailableError("no answer"), page(7))
    assert [each.complete for each in await take(etcd, 1)] == [True]
    assert caplog.messages == ["objects below /nodenet/ are not followed"]
