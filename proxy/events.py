"""Kubernetes Events, where kube-proxy sends them and where a Service of ours is in trouble.

They are for people to read: one that cannot be sent is dropped, and nothing waits for it.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any, Never

from controlloop.errors import UnavailableError
from controlloop.kubernetes.client import ApiClient
from controlloop.kubernetes.resources import EVENTS
from controlloop.logs import Log
from controlloop.printable import printable
from proxy.frontends import ServiceName

AGAIN_S = 300.0
"""What was told is not told again for so long, however often it ends and begins."""
REMEMBERED = 1000
QUEUED = 100
"""More at once help nobody, and the API server least."""
NODE_NAMESPACE = "default"
"""Where Kubernetes keeps Events about what has no namespace."""
LONGEST_NOTE = 1024

log = Log("events")


@dataclass(frozen=True, slots=True)
class Occasion:
    """What is told: kube-proxy's words, so that who filters by them finds ours."""

    reason: str
    action: str
    is_warning: bool = True


STARTING = Occasion("Starting", "StartKubeProxy", is_warning=False)
NO_HEALTHZ = Occasion("FailedToStartProxierHealthcheck", "StartKubeProxy")
NO_METRICS = Occasion("FailedToStartMetricServer", "StartKubeProxy")
NO_HEALTH_CHECK = Occasion("FailedToStartServiceHealthcheck", "Listen")
REFUSED = Occasion("FailedToProgramService", "ProgramRules")
"""Kube-proxy has none for this: there one bad Service stops all."""
FIGHT = Occasion("RulesUndone", "ProgramRules")
"""Another program keeps undoing our rules; kube-proxy would not know."""


class Events:
    def __init__(self, client: ApiClient, node_name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._node_name = node_name
        self._clock = clock
        self._queue: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue(QUEUED)
        self._told: dict[Occasion, dict[ServiceName, str]] = {}
        self._last: OrderedDict[tuple[Occasion, str, str, str], float] = OrderedDict()
        """When each was told, the oldest first."""
        self._numbers = count()

    def starting(self) -> None:
        self._of_node(STARTING, "")

    def not_served(self, page: str, reason: str) -> None:
        """The port of `healthz` or that of `metrics` cannot be had."""
        self._of_node(NO_HEALTHZ if page == "healthz" else NO_METRICS, reason)

    def fought(self, rules: str, reason: str) -> None:
        self._of_node(FIGHT, f"{rules}: {reason}")

    def _of_node(self, occasion: Occasion, note: str) -> None:
        # As kube-proxy and the kubelet: the uid of a Node in an Event is its name.
        regarding = {"kind": "Node", "name": self._node_name, "uid": self._node_name}
        self._tell(occasion, regarding, NODE_NAMESPACE, note)

    def troubled(self, no_health_check: Mapping[ServiceName, str], refused: Mapping[ServiceName, str]) -> None:
        """Services whose health check port cannot be had, and those whose rules the kernel refuses; and why."""
        self._tell_new(NO_HEALTH_CHECK, no_health_check)
        self._tell_new(REFUSED, refused)

    async def run(self) -> Never:
        """Send for ever."""
        while True:
            namespace, event = await self._queue.get()
            try:
                await self._client.create(EVENTS.within(namespace), event)
            except UnavailableError as error:
                log.debug("an event is dropped", reason=event["reason"], error=error)
            finally:
                self._queue.task_done()

    async def sent(self, within_s: float) -> None:
        """Return when all were sent or dropped, or when that takes too long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._queue.join()

    def _tell_new(self, occasion: Occasion, notes: Mapping[ServiceName, str]) -> None:
        before, self._told[occasion] = self._told.get(occasion, {}), dict(notes)
        for service, note in notes.items():
            if before.get(service) != note:
                regarding = {"kind": "Service", "name": service.name, "namespace": service.namespace}
                self._tell(occasion, regarding, service.namespace, note)

    def _is_news(self, occasion: Occasion, namespace: str, name: str, note: str) -> bool:
        what, now = (occasion, namespace, name, note), self._clock()
        if what in self._last and now - self._last[what] < AGAIN_S:
            return False
        self._last[what] = now
        self._last.move_to_end(what)
        if len(self._last) > REMEMBERED:
            self._last.popitem(last=False)
        return True

    def _tell(self, occasion: Occasion, regarding: Mapping[str, str], namespace: str, note: str) -> None:
        if not self._is_news(occasion, namespace, regarding["name"], note):
            return
        now = datetime.now(UTC)
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            # Unique: a name is one of ours, a moment, and a number within it.
            "metadata": {
                "name": f"{regarding['name']}.{now:%Y%m%d%H%M%S%f}{next(self._numbers):04x}",
                "namespace": namespace,
            },
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": "netproxy",
            "reportingInstance": f"netproxy-{self._node_name}"[:128],
            "action": occasion.action,
            "reason": occasion.reason,
            "type": "Warning" if occasion.is_warning else "Normal",
            "regarding": dict(regarding),
            "note": printable(note)[:LONGEST_NOTE],
        }
        if self._queue.full():
            log.debug("an event is dropped", reason=occasion.reason, error="too many at once")
        else:
            self._queue.put_nowait((namespace, event))
