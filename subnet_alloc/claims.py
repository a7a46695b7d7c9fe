"""Records by key where each comes from a node, and several nodes may claim the same key. Pure.

Kubernetes gives each node another podCIDR, yet nothing keeps two Nodes from saying the same. One of them counts: the
own node, else the first by name; the next one when that is gone. What changes costs as much as changed.
"""

from collections.abc import Iterable

from subnet_alloc.registry import Batch, Record


class Claims:
    def __init__(self, own: str) -> None:
        self._own = own
        self._records: dict[str, Record] = {}
        self._claimants: dict[str, set[str]] = {}

    def records(self) -> tuple[Record, ...]:
        """Those that count, by key."""
        return tuple(self._records[self._holder(key)] for key in sorted(self._claimants))

    def contested(self, node: str) -> str:
        """The node that has the key this one claims; empty when this one has it, or claims none."""
        record = self._records.get(node)
        holder = self._holder(record.key) if record else node
        return "" if holder == node else holder

    def replace(self, records: Iterable[tuple[str, Record | None]]) -> None:
        self._records.clear()
        self._claimants.clear()
        for node, record in records:
            self._set(node, record)

    def put(self, node: str, record: Record | None, revision: int) -> Batch:
        """The node claims this now, or nothing; gives back what that means for the keys."""
        keys = sorted({one.key for one in (self._records.get(node), record) if one})
        before = {key: self._counting(key) for key in keys}
        self._set(node, record)
        after = {key: self._counting(key) for key in keys}
        put = tuple(now for key, now in after.items() if now and not _same(before[key], now))
        removed = tuple(key for key, now in after.items() if before[key] and not now)
        return Batch(revision, put, removed)

    def _set(self, node: str, record: Record | None) -> None:
        before = self._records.pop(node, None)
        if before:
            self._claimants[before.key].discard(node)
            if not self._claimants[before.key]:
                del self._claimants[before.key]
        if record:
            self._records[node] = record
            self._claimants.setdefault(record.key, set()).add(node)

    def _counting(self, key: str) -> Record | None:
        return self._records[self._holder(key)] if key in self._claimants else None

    def _holder(self, key: str) -> str:
        nodes = self._claimants[key]
        return self._own if self._own in nodes else min(nodes)


def _same(before: Record | None, now: Record) -> bool:
    """A kubelet that says it lives changes the Node and not the lease."""
    return before is not None and before.value == now.value
