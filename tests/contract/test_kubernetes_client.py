"""The client against an API server that speaks HTTP on a socket: what it reads, and what it makes of each failure."""

import asyncio
import random

import msgspec
import pytest
from apiclient import Annotated, Meta, client_of
from apiserver import Fault, node, running_apiserver
from deadline import PATIENCE_S

from controlloop.errors import CompactedError, UnavailableError
from controlloop.kubernetes.access import Access
from controlloop.kubernetes.answers import DeniedError, NotFoundError
from controlloop.kubernetes.client import ApiClient
from controlloop.kubernetes.connection import Server
from controlloop.kubernetes.credentials import Stored
from controlloop.kubernetes.decode import Moved, Name, Put, Removed, Unreadable
from controlloop.kubernetes.resources import ENDPOINT_SLICES, NODES, SERVICES


class Spec(msgspec.Struct):
    clusterIP: str = ""  # noqa: N815 - the API's name


class Service(msgspec.Struct):
    spec: Spec


@pytest.fixture
async def server():
    async with running_apiserver() as made:
        yield made


@pytest.fixture
def client(server):
    return client_of(server)


class Watching:
    """A watch whose next change is awaited with a deadline."""

    def __init__(self, changes):
        self.changes = changes

    async def next(self):
        async with asyncio.timeout(PATIENCE_S):
            return await anext(self.changes)


async def watching(client, server, after=None, collection=NODES):
    return Watching(client.watch(collection, Annotated, str(server.revision) if after is None else after))


async def begun(server, watches=1):
    async with asyncio.timeout(PATIENCE_S):
        await server.asked("watch", watches)


# -- reading --------------------------------------------------------------------------------------------------------


async def test_a_list_comes_in_pages_of_one_revision(server, client):
    for number in range(8):
        server.put("nodes", node(f"node-{number}"))
    listing = await client.list(NODES, Annotated)
    assert [str(found.name) for found in listing.objects] == [f"node-{number}" for number in range(8)]
    assert listing.revision == str(server.revision)
    assert [seen.query["limit"] for seen in server.requests("list")] == ["3", "3", "3"]


async def test_an_empty_list_is_a_list(client):
    listing = await client.list(ENDPOINT_SLICES, Annotated)
    assert (listing.objects, listing.unreadable) == ((), ())


async def test_only_what_the_struct_names_is_kept(server, client):
    server.put("nodes", node("a", annotations={"x": "1"}))
    (found,) = (await client.list(NODES, msgspec.Raw)).objects
    assert b"managedFields" in bytes(found.content)
    assert await client.get(NODES, "a", Annotated) == Put("2", Name("", "a"), Annotated(Meta({"x": "1"})))


async def test_an_object_that_does_not_fit_is_named_and_the_others_are_read(server, client):
    server.put("services", {"metadata": {"name": "bad", "namespace": "x"}, "spec": {"clusterIP": 7}})
    server.put("services", {"metadata": {"name": "good", "namespace": "x"}, "spec": {"clusterIP": "10.0.0.1"}})
    listing = await client.list(SERVICES, Service)
    assert [str(found.name) for found in listing.objects] == ["x/good"]
    (bad,) = listing.unreadable
    assert (str(bad.name), bad.reason) == ("x/bad", "Expected `str`, got `int` - at `$.spec.clusterIP`")


async def test_selectors_reach_the_server(server, client):
    headless = {"metadata": {"name": "a", "namespace": "x"}, "spec": {"clusterIP": "None"}}
    foreign = {
        "metadata": {"name": "b", "namespace": "x", "labels": {"p/q": "other"}},
        "spec": {"clusterIP": "10.0.0.1"},
    }
    server.put("services", headless)
    server.put("services", foreign)
    server.put("services", {"metadata": {"name": "c", "namespace": "x"}, "spec": {"clusterIP": "10.0.0.2"}})
    chosen = SERVICES.where(labels="!p/q", fields="spec.clusterIP!=None")
    assert [str(found.name) for found in (await client.list(chosen, Service)).objects] == ["x/c"]


async def test_a_listing_whose_pages_expire_is_begun_anew(server, client):
    for number in range(5):
        server.put("nodes", node(f"node-{number}"))
    server.faults.append(Fault("list", insert=b'{"metadata":{"continue":"a token of long ago"}}'))
    listing = await client.list(NODES, Annotated)
    assert len(listing.objects) == 5
    assert len(server.requests("list")) == 4


async def test_a_listing_that_expires_for_ever_is_an_outage(server, client):
    server.faults += [Fault("list", status=410)] * 3
    with pytest.raises(UnavailableError, match="list nodes: expired 3 times in a row"):
        await client.list(NODES, Annotated)


async def test_an_object_that_is_not_there_is_not_found(client):
    with pytest.raises(NotFoundError, match='get nodes a: 404 nodes "a" not found'):
        await client.get(NODES, "a", Annotated)


async def test_a_patch_merges_and_gives_back_what_is(server, client):
    server.put("nodes", node("a", annotations={"keep": "1", "old": "2"}))
    change = {"metadata": {"annotations": {"old": None, "new": "3"}}}
    patched = await client.patch(NODES, "a", change, Annotated, subresource="status")
    assert patched.content.metadata.annotations == {"keep": "1", "new": "3"}
    assert patched.revision == str(server.revision)
    assert server.requests("patch")[0].subresource == "status"


# -- watch ----------------------------------------------------------------------------------------------------------


async def test_a_watch_tells_what_is_put_and_removed(server, client):
    watch = await watching(client, server)
    server.put("nodes", node("a", annotations={"x": "1"}))
    server.annotate("a", x="2")
    server.delete("nodes", "a")
    assert await watch.next() == Put("2", Name("", "a"), Annotated(Meta({"x": "1"})))
    assert await watch.next() == Put("3", Name("", "a"), Annotated(Meta({"x": "2"})))
    assert await watch.next() == Removed("4", Name("", "a"))


async def test_a_watch_catches_up_from_its_revision(server, client):
    for number in range(4):
        server.put("nodes", node(f"node-{number}"))
    watch = await watching(client, server, "3")
    assert [str((await watch.next()).name) for _ in range(2)] == ["node-2", "node-3"]


async def test_an_unreadable_object_in_a_watch_is_named(server, client):
    changes = Watching(client.watch(SERVICES, Service, "1"))
    server.put("services", {"metadata": {"name": "bad", "namespace": "x"}, "spec": {"clusterIP": 7}})
    change = await changes.next()
    assert isinstance(change, Unreadable)
    assert str(change.name) == "x/bad"


async def test_a_bookmark_moves_the_revision_so_that_a_compaction_does_no_harm(server, client):
    watch = await watching(client, server, "1")
    asked = asyncio.ensure_future(watch.next())
    await begun(server)
    server.put("services", {"metadata": {"name": "other", "namespace": "x"}, "spec": {}})
    server.bookmark()
    assert await asked == Moved("2")
    server.compact()
    server.end_watches()
    asked = asyncio.ensure_future(watch.next())
    await begun(server, 2)
    server.put("nodes", node("a"))
    assert (await asked).name == Name("", "a")
    assert [seen.query["resourceVersion"] for seen in server.requests("watch")] == ["1", "2"]


async def test_a_watch_that_ends_without_a_word_is_unavailable(server, client):
    watch = await watching(client, server)
    asked = asyncio.ensure_future(watch.next())
    await begun(server)
    server.end_watches()
    with pytest.raises(UnavailableError, match="watch nodes: the server ended it without a word"):
        await asked


async def test_a_revision_that_is_compacted_says_so_as_status(server, client):
    server.put("nodes", node("a"))
    server.compact()
    with pytest.raises(CompactedError, match="too old resource version"):
        await (await watching(client, server, "1")).next()


async def test_a_revision_that_is_compacted_says_so_as_event(server, client):
    error = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}\n'
    server.faults.append(Fault("watch", insert=error))
    with pytest.raises(CompactedError, match="watch nodes: 410 too old"):
        await (await watching(client, server)).next()


async def test_a_store_that_went_back_says_so(server, client):
    server.faults.append(Fault("watch", insert=b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}\n'))
    with pytest.raises(CompactedError, match="the store went back from revision 90 to 7"):
        await (await watching(client, server, "90")).next()


# -- failures -------------------------------------------------------------------------------------------------------

STREAM = b'{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"9"}}}\n'


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("watch", drop_after=0), "before an answer|broken answer"),
        (Fault("watch", drop_after=20), "broken answer"),
        (Fault("watch", insert=b"not json\n"), "watch nodes: no event"),
        (Fault("watch", insert=b'{"type":"ADDED","object":[]}\n'), "no object"),
        (Fault("watch", insert=b'{"type":"ADDED"}\n'), "watch nodes: no event"),
        (Fault("watch", insert=b'{"type":"DELETED","object":3}\n'), "watch nodes: no event"),
        (Fault("watch", insert=b'{"type":"ERROR","object":{"code":500,"message":"etcd"}}\n'), "watch nodes: 500 etcd"),
        (Fault("watch", insert=b'{"type":"ERROR","object":3}\n'), "an error event that cannot be read"),
        (Fault("watch", status=500), "watch nodes: 500 a fault"),
        (Fault("watch", status=429), "watch nodes: 429 a fault"),
    ],
)
async def test_a_watch_that_fails_is_unavailable_with_the_reason(server, client, fault, reason):
    server.faults.append(fault)
    with pytest.raises(UnavailableError, match=reason):
        await (await watching(client, server)).next()


async def test_half_an_object_is_not_taken_for_one(server, client):
    """Wherever the connection is cut: first what came whole, then the reason; never anything else."""
    head = len(b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n")
    for cut in range(head, head + len(STREAM) + 6, 7):
        server.faults.append(Fault("watch", insert=STREAM, drop_after=cut))
        with pytest.raises(UnavailableError):
            await (await watching(client, server)).next()


async def test_a_watch_that_ends_amid_an_event_is_unavailable(server, client):
    server.faults.append(Fault("watch", insert=STREAM[:30]))
    watch = await watching(client, server)
    asked = asyncio.ensure_future(watch.next())
    await begun(server)
    server.end_watches()
    with pytest.raises(UnavailableError, match="watch nodes: ended in the middle of an event"):
        await asked


async def test_a_connection_that_is_reset_is_unavailable(server, client):
    watch = await watching(client, server)
    asked = asyncio.ensure_future(watch.next())
    await begun(server)
    server.drop_connections()
    with pytest.raises(UnavailableError):
        await asked


async def test_who_has_been_without_a_watch_knows_for_how_long(server, client):
    assert client.unheard_s() == 0
    watch = await watching(client, server)
    server.put("nodes", node("a"))
    await watch.next()
    assert client.unheard_s() == 0
    server.drop_connections()
    with pytest.raises(UnavailableError):
        await watch.next()
    assert client.unheard_s() > 0
    watch = await watching(client, server)
    server.put("nodes", node("b"))
    await watch.next()
    assert client.unheard_s() == 0


async def test_closing_ends_a_watch_and_the_next_one_begins_anew(server, client):
    watch = await watching(client, server)
    server.put("nodes", node("a"))
    await watch.next()
    await client.close()
    with pytest.raises(UnavailableError):
        await watch.next()
    assert (await client.list(NODES, Annotated)).objects


@pytest.mark.parametrize("cut", [0, 10, 60, 200])
async def test_a_list_that_is_cut_is_unavailable(server, client, cut):
    server.put("nodes", node("a"))
    server.faults.append(Fault("list", drop_after=cut))
    with pytest.raises(UnavailableError, match=f"http://127.0.0.1:{server.port}: "):
        await client.list(NODES, Annotated)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"metadata":{},"items":[', b'{"metadata":{},"items":[3]}'])
async def test_a_list_of_garbage_is_unavailable(server, client, body):
    server.faults.append(Fault("list", insert=body or b" "))
    with pytest.raises(UnavailableError, match="the API server's answer is no"):
        await client.list(NODES, Annotated)


async def test_a_server_that_says_nothing_is_unavailable(server):
    server.faults += [Fault("list", hang=True), Fault("watch", hang=True)]
    client = client_of(server, timeout_s=0.2)
    with pytest.raises(UnavailableError, match="no answer in time"):
        await client.list(NODES, Annotated)
    with pytest.raises(UnavailableError, match="no answer in time"):
        await (await watching(client, server)).next()


async def test_nobody_at_the_address_is_unavailable(server):
    async with running_apiserver() as gone:
        client = client_of(gone)
    with pytest.raises(UnavailableError, match=f"http://127.0.0.1:{gone.port}: "):
        await client.list(NODES, Annotated)


async def test_a_server_that_is_overloaded_is_left_alone_as_long_as_it_wants(server, client):
    server.faults.append(Fault("list", status=429, headers=(("Retry-After", "1"),)))
    loop = asyncio.get_running_loop()
    asked = loop.time()
    with pytest.raises(UnavailableError):
        await client.list(NODES, Annotated)
    await client.list(NODES, Annotated)
    assert loop.time() - asked >= 1


async def test_what_is_forbidden_is_named(server, client):
    server.forbidden = {("list", "nodes"), ("patch", "nodes/status")}
    with pytest.raises(DeniedError, match=r"^list nodes: not permitted: .*cannot list resource"):
        await client.list(NODES, Annotated)
    server.put("nodes", node("a"))
    with pytest.raises(DeniedError, match=r"^patch nodes/status a: not permitted: "):
        await client.patch(NODES, "a", {}, Annotated, subresource="status")


BODY = b"".join(
    b'{"type":"%s","object":{"metadata":{"name":"n","resourceVersion":"%d","annotations":{"x":"1"}}}}\n'
    % (kind, revision)
    for revision, kind in enumerate((b"ADDED", b"MODIFIED", b"BOOKMARK", b"DELETED"), start=10)
)
ANSWER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)


def spoiled(chance):
    """The answer with a few bytes changed, lost or repeated."""
    answer = bytearray(ANSWER)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(answer))
        answer[at : at + chance.choice((0, 1, 1, 5))] = chance.choice(
            (b"", b"\n", b"\0", b"9", b'"', answer[at : at + 9])
        )
    return bytes(answer)


async def test_whatever_a_server_says_the_client_knows_what_to_do():
    """Nothing but changes and errors of ours, for 300 answers of which each is broken elsewhere."""
    answers = [spoiled(random.Random(seed)) for seed in range(300)]

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers[-1])
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    client = ApiClient(Access(Server("127.0.0.1", port, tls=False), Stored()), timeout_s=5.0)
    async with listening:
        while answers:
            with pytest.raises((UnavailableError, CompactedError)):
                async with asyncio.timeout(PATIENCE_S):
                    [change async for change in client.watch(NODES, Annotated, "9")]
            answers.pop()
