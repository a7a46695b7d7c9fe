"""What a client has heard of a store, to know it again: a store that was restored from a copy goes over the same
revisions a second time, with other events on them.

The cluster's id does not tell: it is in the copy. Neither does the Raft term, which counts on from the copy's.
"""

from dataclasses import dataclass, replace
from typing import Any

Write = tuple[int, int, int, int, bytes]
"""Of one key: revisions of its last write and of its creation, number of writes, lease, value."""


@dataclass(frozen=True, slots=True)
class Heard:
    """How the key that was written last stood at a revision."""

    revision: int
    key: bytes
    write: Write | None
    """None: it was removed."""


class Past:
    """The last thing heard for each prefix. Messages are etcd's: `mvccpb.KeyValue` and `WatchResponse`."""

    def __init__(self) -> None:
        self._heard: dict[str, Heard] = {}

    def last(self, prefix: str) -> Heard | None:
        return self._heard.get(prefix)

    def listed(self, prefix: str, revision: int, newest: Any | None) -> None:
        """`newest` is the key of a listing that was written last."""
        if newest is not None:
            self._heard[prefix] = Heard(revision, newest.key, write_of(newest))

    def told(self, prefix: str, revision: int, events: Any) -> None:
        """By a watch; without events it is as quiet up to `revision` as it was."""
        if events:
            self._heard[prefix] = Heard(revision, events[-1].kv.key, event_write(events[-1]))
        elif prefix in self._heard:
            self._heard[prefix] = replace(self._heard[prefix], revision=revision)


def newest_of(kvs: Any) -> Any | None:
    return max(kvs, key=lambda kv: kv.mod_revision, default=None)


def event_write(event: Any) -> Write | None:
    return None if event.type == event.DELETE else write_of(event.kv)


def write_of(kv: Any) -> Write:
    return kv.mod_revision, kv.create_revision, kv.version, kv.lease, kv.value
