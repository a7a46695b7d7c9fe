"""The seam between leases and where they are kept.

A registry holds one network configuration and a set of records, each a key (`10.5.34.0-24`) with a value, as bytes:
what they mean is `codec`'s business, so that one unreadable record is a finding and never a failure of the registry.
Two implementations stand under one contract suite: `etcd` and `memory`.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from controlloop.errors import CompactedError, UnavailableError

__all__ = [
    "AlreadyExistsError",
    "Batch",
    "CompactedError",
    "ConflictError",
    "Leases",
    "Listing",
    "Record",
    "Registry",
    "UnavailableError",
]


class AlreadyExistsError(Exception):
    """Somebody created the key first."""


class ConflictError(Exception):
    """The record is not, or no longer, at the revision we know: somebody wrote or removed it."""


@dataclass(frozen=True, slots=True)
class Record:
    """One key as the registry holds it."""

    key: str
    value: bytes
    revision: int
    """Revision of the last write; grows with every write to the registry."""
    lease_id: int = 0
    """What keeps the record alive; 0: it never expires (a reservation)."""
    created: int = 0
    """Revision of its first write."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All records at one revision."""

    revision: int
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes in the order they happened, up to and with `revision`."""

    revision: int
    put: tuple[Record, ...] = ()
    removed: tuple[str, ...] = ()
    """Keys deleted or expired. A key is in `put` or in `removed`, by what happened last."""


class Leases(Protocol):
    """What everybody reads. Every method raises UnavailableError when the store does not answer."""

    async def network_config(self) -> bytes | None:
        """The network configuration, or None while nobody has written one."""
        ...

    async def list(self) -> Listing: ...

    def watch(self, after: int) -> AsyncGenerator[Batch, None]:
        """Changes after a revision, for ever. CompactedError, UnavailableError end it; start again from a new
        listing, or from the last revision seen. A batch without changes says how far a quiet watch has come.
        """
        ...


class Registry(Leases, Protocol):
    """Where nodes choose and write leases themselves. All methods but `watch` are safe to repeat."""

    async def create(self, key: str, value: bytes, ttl_s: int) -> Record:
        """Write a key that must not exist, kept alive for `ttl_s` seconds from now, or without expiry when 0.

        AlreadyExistsError otherwise.
        """
        ...

    async def update(self, record: Record, value: bytes, ttl_s: int) -> Record:
        """Overwrite exactly the record we know (compare-and-swap by revision); ConflictError otherwise.

        `ttl_s` 0 leaves it without expiry. An update with the lease the record already has keeps that lease.
        """
        ...

    async def remove(self, record: Record) -> None:
        """Delete exactly the record we know; ConflictError otherwise."""
        ...

    async def keep_alive(self, record: Record) -> int:
        """Renew the record's lease; gives back the seconds it now has. ConflictError when the lease is gone.

        For records that expire only: a reservation has nothing to renew.
        """
        ...
