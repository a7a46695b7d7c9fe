"""A small Kubernetes API server in the test's own loop: real HTTP on 127.0.0.1, and the rules that clients rely on.

As the real one it has one counter of revisions, pages that belong to one revision and expire with it, watches that
replay history or answer 410, bookmarks, selectors, and patches that merge maps and put lists by their merge key.
`faults` and the other attributes make it misbehave; each fault spoils the next request that it is about.
"""

import asyncio
import copy
import json
import re
from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import h11
from apiserver_http import Answer, DroppedError, receive

PLURALS = {
    "/api/v1/nodes": "nodes",
    "/api/v1/pods": "pods",
    "/api/v1/services": "services",
    "/apis/discovery.k8s.io/v1/endpointslices": "endpointslices",
    "/apis/networking.k8s.io/v1/servicecidrs": "servicecidrs",
    "/apis/events.k8s.io/v1/events": "events",
}
KINDS = {
    "nodes": "Node",
    "pods": "Pod",
    "services": "Service",
    "endpointslices": "EndpointSlice",
    "servicecidrs": "ServiceCIDR",
    "events": "Event",
}
NAMESPACED = re.compile(r"(/api/v1|/apis/[^/]+/[^/]+)/namespaces/([^/]+)(/.+)")
VERBS = {b"POST": "create"}
MERGE_KEYS = {"conditions": "type", "addresses": "type"}


@dataclass
class Fault:
    """What happens to the next request whose verb this is ("" = any)."""

    verb: str = ""
    status: int = 0
    """Answer with it instead of doing anything."""
    headers: tuple[tuple[str, str], ...] = ()
    drop_after: int | None = None
    """Cut the connection once this many bytes of the answer are out."""
    insert: bytes = b""
    """Put into the stream of a watch, or in place of the body."""
    hang: bool = False
    """Take the request and say nothing."""
    plural: str = ""
    """Only a request for these ("" = any)."""


@dataclass
class Event:
    revision: int
    plural: str
    type: str
    object: dict
    before: dict | None = None


@dataclass
class Seen:
    verb: str
    plural: str
    name: str
    subresource: str
    query: dict
    headers: dict
    body: object
    namespace: str = ""


class RefusedError(Exception):
    def __init__(self, status, message, headers=()):
        self.status, self.message, self.headers = status, message, headers


@dataclass
class ApiServer:
    token: str = ""
    """What a client must show; empty: anything."""
    forbidden: set = field(default_factory=set)
    """(verb, resource) pairs such as ("patch", "nodes/status")."""
    faults: list = field(default_factory=list)
    seen: list = field(default_factory=list)
    revision: int = 1
    compacted: int = 0
    port: int = 0

    def __post_init__(self):
        self.objects = defaultdict(dict)
        self.history = []
        self.pages = {}
        self.moved = asyncio.Event()
        self.arrived = asyncio.Event()
        self.bookmarks = 0
        self.writers = set()
        self.tasks = set()
        self.ended_watches = 0

    # -- what a test does to the cluster

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def put(self, plural, manifest):
        """Create or replace; an object that says nothing new gets no new revision."""
        made = copy.deepcopy(manifest)
        metadata = made.setdefault("metadata", {})
        key = (metadata.get("namespace", ""), metadata["name"])
        before = self.objects[plural].get(key)
        metadata["resourceVersion"] = before["metadata"]["resourceVersion"] if before else ""
        if made == before:
            return before
        return self._store(plural, key, made, "MODIFIED" if before else "ADDED")

    def delete(self, plural, name, namespace=""):
        self._store(plural, (namespace, name), self.objects[plural][namespace, name], "DELETED")
        del self.objects[plural][namespace, name]

    def get(self, plural, name, namespace=""):
        return self.objects[plural][namespace, name]

    def annotate(self, name, **annotations):
        self.merge("nodes", name, {"metadata": {"annotations": annotations}})

    def merge(self, plural, name, patch):
        found = self.objects[plural].get(("", name))
        if found is None:
            raise RefusedError(404, f'{plural} "{name}" not found')
        return self.put(plural, merged(found, patch))

    def compact(self):
        """Forget the past, and every listing that was begun."""
        self.compacted = self.revision
        self.history.clear()
        self.pages.clear()

    def bookmark(self):
        """Tell every watcher how far it has come."""
        self.bookmarks += 1
        self._wake()

    def end_watches(self):
        """End all watches in good order, as a real server does after some minutes."""
        self.ended_watches += 1
        self._wake()

    def drop_connections(self):
        for writer in self.writers:
            writer.transport.abort()

    async def up(self, tls=None):
        """Listen, at the port of last time where there was one."""
        self.listener = await asyncio.start_server(self.serve, "127.0.0.1", self.port, ssl=tls)
        self.port = self.listener.sockets[0].getsockname()[1]

    async def down(self):
        """Refuse connections, and drop those that stand."""
        self.listener.close()
        self.drop_connections()
        for task in list(self.tasks):
            task.cancel()
        for task in list(self.tasks):
            with suppress(asyncio.CancelledError):
                await task
        await self.listener.wait_closed()

    def accept_only(self, token):
        self.token = token

    async def asked(self, verb, times=1):
        """Wait until that many such requests have come."""
        while len(self.requests(verb)) < times:
            await self.arrived.wait()

    def requests(self, verb):
        return [seen for seen in self.seen if seen.verb == verb]

    def _store(self, plural, key, made, kind):
        self.revision += 1
        stored = copy.deepcopy(made)
        stored["metadata"]["resourceVersion"] = str(self.revision)
        before = self.objects[plural].get(key)
        self.objects[plural][key] = stored
        self.history.append(Event(self.revision, plural, kind, stored, before))
        self._wake()
        return stored

    def _wake(self):
        self.moved.set()
        self.moved = asyncio.Event()

    # -- HTTP

    async def serve(self, reader, writer):
        task = asyncio.current_task()
        self.tasks.add(task)
        self.writers.add(writer)
        http = h11.Connection(h11.SERVER)
        try:
            while (request := await receive(http, reader)) is not None:
                await self._answer(request, Answer(http, writer))
                if http.our_state is h11.MUST_CLOSE:
                    break
                http.start_next_cycle()
        except (OSError, h11.ProtocolError, DroppedError):
            pass
        finally:
            self.tasks.discard(task)
            self.writers.discard(writer)
            writer.transport.abort()

    async def _answer(self, request, answer):
        head, body = request
        seen = self._understand(head, body)
        self.seen.append(seen)
        self.arrived.set()
        self.arrived = asyncio.Event()
        fault = self._fault(seen)
        answer.limit = fault.drop_after
        try:
            if fault.hang:
                await asyncio.Event().wait()
            if fault.insert and seen.verb != "watch":
                await answer.whole(200, fault.insert)
                return
            await self._do(seen, answer, fault)
        except RefusedError as refusal:
            status = {"kind": "Status", "code": refusal.status, "message": refusal.message}
            await answer.whole(refusal.status, json.dumps(status).encode(), refusal.headers)

    def _fault(self, seen):
        for fault in self.faults:
            if fault.verb in ("", seen.verb) and fault.plural in ("", seen.plural):
                self.faults.remove(fault)
                return fault
        return Fault()

    def _understand(self, head, body):
        target = urlsplit(head.target.decode())
        query = {name: values[0] for name, values in parse_qs(target.query).items()}
        within = NAMESPACED.fullmatch(target.path)
        asked, namespace = (within[1] + within[3], within[2]) if within else (target.path, "")
        path = next((path for path in PLURALS if f"{asked}/".startswith(f"{path}/")), None)
        name, _, subresource = asked[len(path or "") + 1 :].partition("/")
        verb = VERBS.get(head.method, head.method.decode().lower())
        if verb == "get" and not name:
            verb = "watch" if query.get("watch") in ("true", "1") else "list"
        headers = {key.decode(): value.decode() for key, value in head.headers}
        said = json.loads(body) if body else None
        return Seen(verb, PLURALS.get(path, ""), name, subresource, query, headers, said, namespace)

    async def _do(self, seen, answer, fault):
        if fault.status:
            raise RefusedError(fault.status, "a fault of the test", fault.headers)
        self._admit(seen)
        if seen.verb == "list":
            await answer.whole(200, json.dumps(self._list(seen)).encode())
        elif seen.verb == "watch":
            await self._watch(seen, answer, fault)
        elif seen.verb == "get":
            found = self.objects[seen.plural].get((seen.namespace, seen.name))
            if found is None:
                raise RefusedError(404, f'{seen.plural} "{seen.name}" not found')
            await answer.whole(200, json.dumps(found).encode())
        elif seen.verb == "patch":
            await answer.whole(200, json.dumps(self._patch(seen)).encode())
        elif seen.verb == "create":
            await answer.whole(201, json.dumps(self._create(seen)).encode())
        else:
            raise RefusedError(405, "the server does not allow this method on the requested resource")

    def _admit(self, seen):
        resource = f"{seen.plural}/{seen.subresource}" if seen.subresource else seen.plural
        if self.token and seen.headers.get("authorization") != f"Bearer {self.token}":
            raise RefusedError(401, "Unauthorized")
        if not seen.plural:
            raise RefusedError(404, "the server could not find the requested resource")
        if (seen.verb, resource) in self.forbidden:
            raise RefusedError(403, f'User "test" cannot {seen.verb} resource "{resource}" at the cluster scope')

    def _list(self, seen):
        if token := seen.query.get("continue"):
            if token not in self.pages:
                raise RefusedError(410, "The provided continue parameter is too old")
            revision, items = self.pages.pop(token)
        else:
            revision = self.revision
            of_kind = self.objects[seen.plural]
            items = [copy.deepcopy(of_kind[key]) for key in sorted(of_kind) if selects(seen, of_kind[key])]
        limit = int(seen.query.get("limit", 0)) or len(items)
        metadata = {"resourceVersion": str(revision)}
        if items[limit:]:
            metadata["continue"] = f"page-{revision}-{len(self.seen)}"
            self.pages[metadata["continue"]] = revision, items[limit:]
        return {"kind": f"{KINDS[seen.plural]}List", "metadata": metadata, "items": items[:limit]}

    def _patch(self, seen):
        if seen.headers.get("content-type") != "application/strategic-merge-patch+json":
            raise RefusedError(415, "the body of the request was in an unknown format")
        return self.merge(seen.plural, seen.name, seen.body)

    def _create(self, seen):
        metadata = seen.body["metadata"]
        if seen.headers.get("content-type") != "application/json" or metadata.get("namespace", "") != seen.namespace:
            raise RefusedError(400, "the body of the request is not what its path says")
        if (seen.namespace, metadata["name"]) in self.objects[seen.plural]:
            raise RefusedError(409, f'{seen.plural} "{metadata["name"]}" already exists')
        return self.put(seen.plural, seen.body)

    async def _watch(self, seen, answer, fault):
        after = int(seen.query["resourceVersion"])
        if after < self.compacted:
            raise RefusedError(410, f"too old resource version: {after} ({self.compacted})")
        bookmarks, ended = self.bookmarks, self.ended_watches
        await answer.begin()
        if fault.insert:
            await answer.part(fault.insert)
        while ended == self.ended_watches:
            moved = self.moved
            for event in [event for event in self.history if event.revision > after and event.plural == seen.plural]:
                after = event.revision
                if kind := kind_for(seen, event):
                    await answer.event(kind, event.object)
            if bookmarks < self.bookmarks and seen.query.get("allowWatchBookmarks") == "true":
                bookmarks = self.bookmarks
                await answer.event("BOOKMARK", self._bookmark(seen.plural))
            await moved.wait()
        await answer.end()

    def _bookmark(self, plural):
        return {"kind": KINDS[plural], "metadata": {"resourceVersion": str(self.revision)}}


def kind_for(seen, event):
    """What an event is to a watch with selectors; empty when it is none of its business."""
    before = event.before is not None and selects(seen, event.before)
    after = event.type != "DELETED" and selects(seen, event.object)
    if after:
        return "MODIFIED" if before else "ADDED"
    return "DELETED" if before else ""


def selects(seen, content):
    for term in filter(None, seen.query.get("fieldSelector", "").split(",")):
        path, negated, wanted = term.partition("!=") if "!=" in term else term.partition("=")
        found = content
        for step in path.split("."):
            found = found.get(step, "") if isinstance(found, dict) else ""
        if (found == wanted) is (negated == "!="):
            return False
    labels = content["metadata"].get("labels", {})
    terms = filter(None, seen.query.get("labelSelector", "").split(","))
    return all((term[1:] not in labels) if term.startswith("!") else (term in labels) for term in terms)


def merged(content, patch):
    """Strategic merge: maps by key with null as deletion, lists with a merge key by it, other lists as a whole."""
    result = dict(content)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merged(result.get(key) or {}, value)
        elif key in MERGE_KEYS:
            by_key = {one[MERGE_KEYS[key]]: one for one in result.get(key) or []}
            for one in value:
                by_key[one[MERGE_KEYS[key]]] = merged(by_key.get(one[MERGE_KEYS[key]], {}), one)
            result[key] = list(by_key.values())
        else:
            result[key] = value
    return result


@asynccontextmanager
async def running_apiserver(*, tls=None, **attributes):
    """An ApiServer on a free port of 127.0.0.1, gone at the end together with its connections."""
    made = ApiServer(**attributes)
    await made.up(tls)
    try:
        yield made
    finally:
        await made.down()


def node(name, *pod_cidrs, annotations=None, **metadata):
    """A Node as its kubelet reports it, with what nobody wants to read as well."""
    noise = [{"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {"f:conditions": {}}}}]
    spec = {"podCIDR": pod_cidrs[0], "podCIDRs": list(pod_cidrs)} if pod_cidrs else {}
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": name, "annotations": dict(annotations or {}), "managedFields": noise, **metadata},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]},
    }
