"""The own lease, wherever leases are kept: what an agent needs to know of it.

Two implementations: here over any registry, and `kubernetes.KubernetesLessor`.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Never, Protocol

from controlloop.family import Family, IPAddress
from subnet_alloc.allocate import Choose, Subnets
from subnet_alloc.codec import render_attrs
from subnet_alloc.leasing import TTL_S, OwnLease, acquire, keep
from subnet_alloc.model import Lease, LeaseAttrs, NetworkConfig
from subnet_alloc.registry import ConflictError, Registry


class Lessor(Protocol):
    async def wanted_public_ip(self) -> dict[Family, IPAddress]:
        """Where an administrator wants the node to be reached; what is not in it is for the node to find out."""
        ...

    async def acquire(self, attrs: LeaseAttrs, *, config: NetworkConfig) -> OwnLease:
        """The subnets of this node, with `attrs` told to its peers; again after a loss, or with other `attrs`.

        UnavailableError: try again later. What peers read may differ from `attrs` where an administrator wants that.
        """
        ...

    async def keep(self, own: OwnLease) -> Never:
        """LeaseLostError when it is ours no more; acquire again."""
        ...

    async def announce(self) -> None:
        """Tell whoever waits for it that pods have a network on this node. Comes back when that is known."""
        ...


class RegistryLessor:
    def __init__(
        self, registry: Registry, previous: Callable[[], Subnets | None], choose: Choose, margin_s: int = 0
    ) -> None:
        """`previous` gives what the node had before it started, `choose` is chance, `margin_s` is for `keep`."""
        self._registry = registry
        self._previous = previous
        self._choose = choose
        self._margin_s = margin_s
        self._own: OwnLease | None = None

    async def wanted_public_ip(self) -> dict[Family, IPAddress]:
        """A registry knows nothing of nodes that hold no lease."""
        return {}

    async def acquire(self, attrs: LeaseAttrs, *, config: NetworkConfig) -> OwnLease:
        self._own = await self._say_anew(attrs) or await acquire(
            self._registry,
            attrs,
            previous=self._own.lease.subnets if self._own else self._previous(),
            config=config,
            choose=self._choose,
        )
        return self._own

    async def keep(self, own: OwnLease) -> Never:
        await keep(self._registry, own, self._margin_s)

    async def announce(self) -> None:
        """Nobody waits for it."""

    async def _say_anew(self, attrs: LeaseAttrs) -> OwnLease | None:
        """The same subnet under other words; None when that is not what is wanted, or the record is not as we left it.

        What counts is what the record says: a renewal, or a store that was restored, gives it another revision.
        """
        own = self._own
        if own is None or own.lease.attrs == attrs:
            return None
        for record in (await self._registry.list()).records:
            if (record.key, record.value) == (own.record.key, own.record.value):
                with suppress(ConflictError):
                    # A reservation stays one.
                    ttl_s = TTL_S if record.lease_id else 0
                    written = await self._registry.update(record, render_attrs(attrs), ttl_s)
                    return OwnLease(written, Lease(own.lease.subnets, attrs))
        return None
