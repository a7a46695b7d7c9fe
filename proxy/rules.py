"""The rules of this node in one mode: all families, written together, audited apart."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, Never

from controlloop.command import CommandError
from controlloop.errors import UnavailableError
from controlloop.family import Family
from controlloop.logs import Log
from controlloop.memory import give_back
from proxy.config import ProxyMode
from proxy.counting.desired import CountingPlanner
from proxy.counting.kernel import CountingBackend
from proxy.frontends import Balance, Frontend, ServiceName
from proxy.iptables.desired import IptablesPlanner
from proxy.iptables.kernel import IptablesBackend, affinity_memory
from proxy.nftables.desired import NftablesPlanner
from proxy.nftables.kernel import NftablesBackend
from proxy.node import Surroundings
from proxy.sync import RuleSync

Engine = RuleSync[Any, Any]
"""`Any`: the two modes have objects of their own."""

BALANCES = {
    ProxyMode.NFTABLES: frozenset(Balance),
    ProxyMode.IPTABLES: frozenset({Balance.RANDOM, Balance.ROUND_ROBIN, Balance.WEIGHTED}),
}
"""iptables has no hash of an address that a rule could choose by."""

AUDIT_S = 300.0
"""Between looks at everything, where the kernel tells what others do; without that, the configured sync period."""

log = Log("rules")


def engine(mode: ProxyMode, surroundings: Surroundings, wake: Callable[[], None]) -> Engine:
    family = surroundings.family
    name = f"{mode.value}-{family.nft}"
    if mode is ProxyMode.NFTABLES:
        return RuleSync(
            name,
            NftablesPlanner(surroundings),
            NftablesBackend(family),
            wake,
        )
    return RuleSync(name, IptablesPlanner(surroundings, affinity_memory(family)), IptablesBackend(family), wake)


def counter(surroundings: Surroundings, wake: Callable[[], None]) -> Engine:
    """Counts what rules of any mode translate."""
    family = surroundings.family
    return RuleSync(f"counters-{family.nft}", CountingPlanner(surroundings), CountingBackend(family), wake)


class Rules:
    def __init__(
        self, engines: Mapping[Family, Engine], counters: Mapping[Family, Engine], unwatched_audit_s: float
    ) -> None:
        self.engines = engines
        """What translates."""
        self.counters = counters
        """What counts beside it; empty unless that is asked for."""
        self._unwatched_audit_s = unwatched_audit_s

    @property
    def each(self) -> Sequence[Engine]:
        return *self.engines.values(), *self.counters.values()

    @property
    def in_kernel(self) -> bool:
        return all(engine.in_kernel for engine in self.each)

    @property
    def written(self) -> bool:
        """Whether every family was written once, verified or not."""
        return all(engine.stats.syncs for engine in self.each)

    def plan(self, changed: Sequence[tuple[ServiceName, Sequence[Frontend]]]) -> None:
        for engine in self.each:
            engine.plan(changed)

    @property
    def plan_early(self) -> bool:
        """What is planned before all Services are known goes ahead, and nobody has to wait until they are."""
        return all(engine.plans_early for engine in self.engines.values())

    async def prepare(self) -> None:
        """Before the first plan. Whoever cannot look now will say so when it is to write."""
        await asyncio.gather(*(engine.prepare() for engine in self.each), return_exceptions=True)

    def settle(self, surroundings: Surroundings) -> None:
        for engines in self.engines, self.counters:
            if engine := engines.get(surroundings.family):
                engine.settle(surroundings)

    async def sync(self, written: Callable[[Family], None]) -> None:
        """Write what was planned and what drifted, and call `written` for each family whose services answer by it.

        One family's failure does not keep the other from being right.
        """
        outcomes = await asyncio.gather(*(engine.sync() for engine in self.each), return_exceptions=True)
        failure: BaseException | None = None
        for engine, error in zip(self.each, outcomes, strict=True):
            if error:
                log.warning("not synced", rules=engine.name, error=error)
                failure = error
        for family, error in zip(self.engines, outcomes, strict=False):
            if not error:
                written(family)
        if failure:
            raise failure

    def rule_counts(self) -> Mapping[tuple[str, Family], int]:
        """How many rules there should be in each table of iptables; empty in nftables mode, where they are constant."""
        counts: Counter[tuple[str, Family]] = Counter()
        for family, engine in self.engines.items():
            for key, rules in engine.desired.items():
                if isinstance(rules, tuple):
                    counts[key[0], family] += len(rules)
        return counts

    def ask_for_audits(self) -> None:
        for engine in self.each:
            engine.audit_due.set()

    def fights(self) -> Iterator[tuple[str, str]]:
        return chain.from_iterable(engine.fights() for engine in self.each)

    def quarantined(self) -> Iterator[tuple[ServiceName, str]]:
        for engine in self.each:
            for service, one in engine.quarantined.items():
                yield service, f"{engine.name}: {one.reason}"

    async def keep_auditing(self) -> None:
        """Watch and audit for ever; each family goes its own way."""
        async with asyncio.TaskGroup() as group:
            for engine in self.each:
                group.create_task(self._keep_auditing(engine))

    async def _keep_auditing(self, engine: Engine) -> Never:
        await engine.audit_due.wait()  # the first sync asks for it
        clock = asyncio.get_running_loop().time
        try:
            await engine.start_watch()
            period_s = AUDIT_S if engine.watched else self._unwatched_audit_s
            retry_at = clock() + period_s
            while True:
                engine.audit_due.clear()
                await self._audit(engine)
                with suppress(TimeoutError):
                    async with asyncio.timeout(period_s):
                        await engine.audit_due.wait()
                # By the clock: where audits are asked for all the time, none of them waits to its end.
                if clock() >= retry_at:
                    engine.retry_quarantined()
                    retry_at = clock() + period_s
        finally:
            engine.close()

    async def _audit(self, engine: Engine) -> None:
        try:
            await engine.audit()
        except (CommandError, UnavailableError, OSError) as error:
            log.warning("not audited", rules=engine.name, error=error)
        give_back()
