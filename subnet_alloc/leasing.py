"""Get a lease, keep it, and follow everybody's leases, over any registry.

A node is known by its public IP: whoever asks again from the same address gets its subnet again (flannel). The own
record is written in place and only as we know it (compare-and-swap), so that neither a faster node nor an
administrator is ever overwritten; a lost race starts over from a fresh list.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Never

from controlloop.errors import Skipped
from controlloop.family import Family
from controlloop.following import Following
from controlloop.logs import Log
from controlloop.runner import Backoff
from subnet_alloc.allocate import Choose, Subnets, choose_subnets, fits, is_free
from subnet_alloc.codec import render_attrs, render_key
from subnet_alloc.model import Lease, LeaseAttrs, NetworkConfig
from subnet_alloc.registry import (
    AlreadyExistsError,
    Batch,
    ConflictError,
    Leases,
    Listing,
    Record,
    Registry,
    UnavailableError,
)
from subnet_alloc.snapshot import LeaseSnapshot

log = Log("subnet_alloc")

TTL_S = 86_400
"""How long a lease outlives its node (flannel)."""
TRIES = 30
"""Races that may be lost in a row: fifty nodes that want the last fifty subnets need about ten."""

REPEAT_S = 1.0
"""flanneld up to 0.20 takes one event of a watch answer: of a put among others it hears when it comes once more."""

SHORTEST_PAUSE_S = 1.0
"""Between two renewals, when the margin is longer than the lease."""


class LeaseLostError(Exception):
    """The own lease is gone: it expired while the registry was out of reach, or was ended. Acquire again."""


@dataclass(frozen=True, slots=True)
class OwnLease:
    record: Record
    lease: Lease
    is_new: bool = field(default=False, compare=False)
    """The record was created, where a moment ago there was none or another."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """What this node asks for."""

    attrs: LeaseAttrs
    previous: Subnets | None
    config: NetworkConfig
    choose: Choose
    ttl_s: int


async def acquire(  # noqa: PLR0913 - keywords that read as a sentence
    registry: Registry,
    attrs: LeaseAttrs,
    *,
    previous: Subnets | None,
    config: NetworkConfig,
    choose: Choose,
    ttl_s: int = TTL_S,
) -> OwnLease:
    """The subnet of this node: the one it has, else the previous one if that is free, else a free one by chance.

    A lease of ours that the configuration no longer allows is removed. A reservation (a record without expiry) stays
    one. NoFreeSubnetError when the network is full; UnavailableError when the registry is, or others were always
    faster. Both are worth another try later.
    """
    wish = _Wish(attrs, previous, config, choose, ttl_s)
    for _ in range(TRIES):
        snapshot = LeaseSnapshot.of(await registry.list())
        with suppress(AlreadyExistsError, ConflictError):
            return await _acquire_from(snapshot, registry, wish)
    raise UnavailableError(f"subnet_alloc: others were faster {TRIES} times in a row")


async def keep(registry: Registry, own: OwnLease, margin_s: float = 0.0) -> Never:
    """Keep the lease alive: at a third of its time, or `margin_s` before its end if that is earlier.

    LeaseLostError when it is gone.

    A new one is written a second time after REPEAT_S. An unreachable registry is asked again with back-off: nothing is
    lost before the lease expires there. That the record still says what we wrote is for `follow` to tell.
    """
    backoff, record = Backoff(), own.record
    repeat_at = time.monotonic() + REPEAT_S if own.is_new else math.inf
    if not record.lease_id:
        await asyncio.Event().wait()
    while True:
        try:
            ttl_s = await registry.keep_alive(record)
            if time.monotonic() >= repeat_at:
                record, repeat_at = await registry.update(record, record.value, ttl_s), math.inf
            wait_s = min(ttl_s / 3, max(ttl_s - margin_s, SHORTEST_PAUSE_S), max(repeat_at - time.monotonic(), 0))
            backoff.reset()
        except ConflictError as error:
            raise LeaseLostError(f"lease of {own.record.key} is lost: {error}") from error
        except UnavailableError as error:
            wait_s = backoff.next()
            log.warning("lease not renewed", key=own.record.key, error=error, retry_in_s=round(wait_s, 1))
        await asyncio.sleep(wait_s)


async def follow(registry: Leases) -> AsyncGenerator[tuple[LeaseSnapshot, frozenset[str]], None]:
    """All leases, for ever: as listed, then each time that some changed, with the keys of those.

    The snapshot is the same object each time and moves on between two steps. An unreachable registry leaves it as it
    is; a compaction, or a store restored to an older state, is bridged by listing again. A listing is a step even when
    nothing changed, and so is a record that cannot be read, or can be again: somebody shows them.
    """
    snapshot = LeaseSnapshot()
    following = Following("leases", partial(_listing, registry), partial(_watch, registry))
    async with aclosing(following.news()) as news:
        async for one in news:
            skipped_before = dict(snapshot.skipped)
            changed = snapshot.replace(one) if isinstance(one, Listing) else snapshot.apply(one)
            _tell_skipped(skipped_before, snapshot)
            if changed or isinstance(one, Listing) or snapshot.skipped != skipped_before:
                yield snapshot, changed


async def _listing(registry: Leases) -> AsyncGenerator[Listing | Batch, None]:
    yield await registry.list()


async def _watch(registry: Leases, after: int) -> AsyncGenerator[Listing | Batch, None]:
    async with aclosing(registry.watch(after)) as batches:
        async for batch in batches:
            yield batch


async def _acquire_from(snapshot: LeaseSnapshot, registry: Registry, wish: _Wish) -> OwnLease:
    mine = _keys_of(wish.attrs, snapshot)
    for key in mine:
        lease = snapshot.leases[key]
        if fits(wish.config, lease.subnets):
            return await _reuse(snapshot.records[key], lease, registry, wish)
    for key in mine:
        await registry.remove(snapshot.records[key])
        snapshot.apply(Batch(snapshot.revision, removed=(key,)))
    return await _create(snapshot, registry, wish)


async def _reuse(record: Record, lease: Lease, registry: Registry, wish: _Wish) -> OwnLease:
    value = render_attrs(wish.attrs)
    if record.value != value:
        # A reservation must not turn into a lease that ends with its node.
        record = await registry.update(record, value, wish.ttl_s if record.lease_id else 0)
    elif record.lease_id:
        await registry.keep_alive(record)
    return OwnLease(record, Lease(lease.subnets, wish.attrs))


async def _create(snapshot: LeaseSnapshot, registry: Registry, wish: _Wish) -> OwnLease:
    subnets = wish.previous
    if subnets is not None and (spoiled := _spoiled_record(snapshot, subnets, wish.config)):
        # Somebody wrote garbage over it. With another subnet every pod of this node would lose its address.
        record = await registry.update(spoiled, render_attrs(wish.attrs), wish.ttl_s)
        return OwnLease(record, Lease(subnets, wish.attrs))
    taken = list(snapshot.taken())
    if subnets is None or not fits(wish.config, subnets) or not is_free(subnets, taken):
        subnets = choose_subnets(wish.config, taken, wish.choose)
    record = await registry.create(render_key(subnets), render_attrs(wish.attrs), wish.ttl_s)
    if len(subnets) > 1:
        await _give_way(record, subnets, registry)
    return OwnLease(record, Lease(subnets, wish.attrs), is_new=True)


async def _give_way(record: Record, subnets: Subnets, registry: Registry) -> None:
    """AlreadyExistsError when a subnet was somebody's before: the key guards the two together, and not each of them.

    Of two nodes that chose at the same time the later one gives way. flannel does not look, so its nodes do not.
    """
    now = LeaseSnapshot.of(await registry.list())
    older = [lease.subnets for key, lease in now.leases.items() if now.records[key].created < record.created]
    if not is_free(subnets, older):
        await registry.remove(record)
        raise AlreadyExistsError(record.key)


def _spoiled_record(snapshot: LeaseSnapshot, subnets: Subnets, config: NetworkConfig) -> Record | None:
    """The record of these subnets, if nobody can read who holds it."""
    key = render_key(subnets)
    if key not in snapshot.skipped or key in snapshot.leases or not fits(config, subnets):
        return None
    return snapshot.records.get(key)


def _keys_of(attrs: LeaseAttrs, snapshot: LeaseSnapshot) -> list[str]:
    """Leases with our public IP, in key order. With two families IPv4 is what names a node."""
    family = Family.V4 if Family.V4 in attrs.public_ip else Family.V6
    address = attrs.public_ip[family]
    return sorted(key for key, lease in snapshot.leases.items() if lease.attrs.public_ip.get(family) == address)


def _tell_skipped(before: Mapping[str, Skipped], snapshot: LeaseSnapshot) -> None:
    for key, skipped in snapshot.skipped.items():
        if before.get(key) != skipped:
            log.warning("lease skipped", key=key, reason=skipped.reason)
