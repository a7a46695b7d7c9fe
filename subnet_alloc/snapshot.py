"""All leases of the network, as far as we understand them.

Pure. Built from a listing and moved on by batches, at a cost that grows with the batch. What comes out are the keys
whose lease is another one than before, compared whole: a renewal that repeats the value changes nothing, a new MAC
does. Bad input disturbs nothing: a record that cannot be read is set aside and named, and if there was a good lease
under its key, that one stays in force until the record is mended or removed.

Leases may overlap or share a public IP: only the key is guarded by the registry. Both are kept here, by their keys.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from controlloop.errors import Skipped
from controlloop.family import Family, IPNetwork
from subnet_alloc.codec import MalformedError, parse_attrs, parse_key, parse_lease
from subnet_alloc.model import Lease
from subnet_alloc.registry import Batch, Listing, Record


class LeaseSnapshot:
    """Read it through its mappings, all by key; only `replace` and `apply` change it."""

    def __init__(self) -> None:
        self.revision = 0
        self._records: dict[str, Record] = {}
        self._leases: dict[str, Lease] = {}
        self._skipped: dict[str, Skipped] = {}

    @classmethod
    def of(cls, listing: Listing) -> "LeaseSnapshot":
        snapshot = cls()
        snapshot.replace(listing)
        return snapshot

    @property
    def records(self) -> Mapping[str, Record]:
        """What the registry holds, readable or not."""
        return MappingProxyType(self._records)

    @property
    def leases(self) -> Mapping[str, Lease]:
        """What is in force."""
        return MappingProxyType(self._leases)

    @property
    def skipped(self) -> Mapping[str, Skipped]:
        """Records that cannot be read."""
        return MappingProxyType(self._skipped)

    def taken(self) -> Iterator[Mapping[Family, IPNetwork]]:
        """Subnets that nobody may lease: also those of records whose value nobody can read."""
        for lease in self._leases.values():
            yield lease.subnets
        for key in self._skipped.keys() - self._leases.keys():
            try:
                yield parse_key(key)
            except MalformedError:
                continue

    def replace(self, listing: Listing) -> frozenset[str]:
        """Let the listing be all there is; gives back the keys whose lease changed, appeared or went."""
        # A listing may come from a store that was restored: its revisions then say nothing about ours.
        known = {record.key for record in listing.records}
        gone = tuple(key for key in self._records if key not in known)
        return self.apply(Batch(listing.revision, listing.records, gone))

    def apply(self, batch: Batch) -> frozenset[str]:
        """Move on to the batch's revision; gives back the keys whose lease changed, appeared or went."""
        changed = {record.key for record in batch.put if self._put(record)}
        changed |= {key for key in batch.removed if self._remove(key)}
        self.revision = batch.revision
        return frozenset(changed)

    def _put(self, record: Record) -> bool:
        key = record.key
        before = self._records.get(key)
        self._records[key] = record
        if before is not None and before.value == record.value:
            return False
        try:
            lease = self._read(record)
        except MalformedError as error:
            self._skipped[key] = Skipped(key, self._reason(key, error))
            return False
        self._skipped.pop(key, None)
        changed = self._leases.get(key) != lease
        self._leases[key] = lease
        return changed

    def _read(self, record: Record) -> Lease:
        known = self._leases.get(record.key)
        # The key says which subnets; only the value is news.
        return Lease(known.subnets, parse_attrs(record.value)) if known else parse_lease(record.key, record.value)

    def _reason(self, key: str, error: MalformedError) -> str:
        return f"{error}; the lease before it stays in force" if key in self._leases else str(error)

    def _remove(self, key: str) -> bool:
        self._records.pop(key, None)
        self._skipped.pop(key, None)
        return self._leases.pop(key, None) is not None
