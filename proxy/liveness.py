"""Whether this proxy keeps up, and whether this node should get traffic: kube-proxy's `/healthz` and `/livez`."""

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from controlloop.http_server import Answer, json_answer


class Liveness:
    """A family that was given a change and did not write it for `patience_s` is not healthy."""

    def __init__(self, families: Iterable[str], patience_s: float, clock: Callable[[], float] = time.time) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._queued: dict[str, float | None] = dict.fromkeys(families)
        self._updated: dict[str, float] = dict.fromkeys(self._queued, 0.0)
        self.node_eligible = True
        """Whether the node stays in the cluster: neither being deleted nor marked for it by the autoscaler."""

    def queued(self) -> None:
        """There is a change to write."""
        now = self._clock()
        for family, since in self._queued.items():
            self._queued[family] = now if since is None else since

    def written(self, family: str) -> None:
        """All that was queued is in the kernel."""
        self._queued[family] = None
        self._updated[family] = self._clock()

    @property
    def healthy(self) -> bool:
        return all(self._is_healthy(family) for family in self._queued)

    def _is_healthy(self, family: str) -> bool:
        """Before the first sync the rules of an earlier process serve, so that is no illness either."""
        since = self._queued[family]
        return since is None or self._clock() - since < self._patience_s

    def healthz(self) -> Answer:
        """What load balancers ask: 503 also when the node is on its way out."""
        return json_answer(self.document(), 200 if self.healthy and self.node_eligible else 503)

    def livez(self) -> Answer:
        return json_answer(self.document(), 200 if self.healthy else 503)

    def document(self) -> dict[str, Any]:
        now = self._clock()
        return {
            "lastUpdated": timestamp(now if self.healthy else max(self._updated.values(), default=0.0)),
            "currentTime": timestamp(now),
            "nodeEligible": self.node_eligible,
            "healthy": self.healthy,
            "status": {
                family: {
                    "lastUpdated": timestamp(now if self._is_healthy(family) else self._updated[family]),
                    "healthy": self._is_healthy(family),
                }
                for family in self._queued
            },
        }


def timestamp(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat().replace("+00:00", "Z")
