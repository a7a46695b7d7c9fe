"""The node's firewall as the agent drives it: it plans with the leases, syncs with the kernel, and cleans up."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from controlloop.command import CommandError
from controlloop.family import Family, IPAddress, IPNetwork
from controlloop.history import History
from controlloop.logs import Log
from controlloop.repairs import BURST
from controlloop.sync import SyncEngine, SyncStats
from controlloop.wanted import WantedRules
from netagent.finding import Finding, fight
from netagent.firewall.desired import Policy, rules_name
from netagent.firewall.family_rules import FamilyRules
from netagent.firewall.translation import Pods
from netagent.firewall.watch import Watch

log = Log("netagent.firewall")


class Firewall:
    """Both families. Whoever calls `sync` is the only writer.

    A new peer is planned and synced before its lease is programmed, or its first packets are lost.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._families = {family: FamilyRules(family, policy) for family in Family}
        self._pods: Mapping[Family, Pods] = {}
        self._written_for: Mapping[Family, Pods] | None = None
        self._retired = False
        self._told = ""
        self._watch: Watch | None = None
        self._mended_in_a_row = 0
        """Looks that nobody asked for and that found something each time."""

    @property
    def stats(self) -> Mapping[str, SyncStats]:
        return {engine.name: engine.stats for engine in self._engines}

    @property
    def in_kernel(self) -> bool:
        """Whether the last attempt to write succeeded, and there was one."""
        return self._written_for == self._pods and all(engine.in_kernel for engine in self._engines)

    @property
    def _repairs(self) -> int:
        return sum(stats.repairs for stats in self.stats.values())

    @property
    def _engines(self) -> list[SyncEngine[Any, Any]]:
        return [engine for rules in self._families.values() for engine in rules.engines]

    def watch(self, wake: Callable[[], None]) -> None:
        """From now on notice what somebody else changes: `wake` is called, and the next `sync` looks at everything."""
        self._watch = Watch(self._policy, wake)

    def tell(self, history: History) -> None:
        """From now on let it tell of repairs."""
        for engine in self._engines:
            engine.history = history

    @property
    def is_held(self) -> bool:
        """Whether somebody keeps undoing rules, so that their repair has to wait."""
        return self._watch is not None and self._watch.is_held

    def findings(self) -> list[Finding]:
        """One while somebody keeps undoing rules."""
        heard = self._watch.findings() if self._watch else []
        # Legacy iptables tells nobody who it was.
        return heard or ([fight(rules_name(self._policy), "")] if self._mended_in_a_row > BURST else [])

    async def wanted(self) -> list[WantedRules]:
        """All rules, for who compares them with the kernel."""
        return [each for rules in self._families.values() for each in await rules.wanted()]

    def close(self) -> None:
        if self._watch:
            self._watch.close()

    def plan(self, networks: Mapping[Family, IPNetwork], own_subnets: Mapping[Family, IPNetwork]) -> None:
        """Note the pod network and our part of it; `sync` writes what follows. Costs nothing when nothing changed."""
        self._pods = {
            family: Pods(networks[family], own_subnets[family])
            for family in Family
            if family in networks and family in own_subnets
        }

    def plan_peers(self, changed: Iterable[tuple[str, Collection[IPAddress]]]) -> None:
        """Note where these peers, by the names of their leases, send from now on; none: the peer is gone.

        All peers have to be planned before the first sync: it removes those of an earlier run that are missing.
        """
        if self._policy.guarded is None:
            return
        for name, addresses in changed:
            for rules in self._families.values():
                rules.table.replace_peer(name, addresses, rules.nftables.pending)

    async def sync(self, *, resync: bool) -> None:
        """Write what was planned since the last sync; with `resync`, whatever else differs as well.

        Does nothing before the first `plan`. CommandError or VerificationError when something did not go in.
        """
        if not self._pods:
            return
        drifted = self._watch is not None and self._watch.take()
        whole = resync or drifted or self._written_for != self._pods
        before = self._repairs
        if self._written_for != self._pods:
            await self._replan()
        await self._write(whole=whole)
        if resync:
            self._mended_in_a_row = self._mended_in_a_row + 1 if self._repairs > before else 0
        if whole and not self._retired:
            await self._retire()

    async def _write(self, *, whole: bool) -> None:
        # What fails in one family or program must not keep the others from being right.
        syncs = (engine.sync(resync=whole) for engine in self._engines)
        outcomes = await asyncio.gather(*syncs, return_exceptions=True)
        for failure in filter(None, outcomes):
            raise failure

    async def _replan(self) -> None:
        pods = self._pods
        for family, rules in self._families.items():
            await rules.plan(pods.get(family))
        # A family that has no pods any more leaves rules behind, as a run in another mode does.
        self._written_for, self._retired = pods, False

    async def _retire(self) -> None:
        """The old rules say the same as ours, so traffic does not suffer while they cannot be removed."""
        try:
            for rules in self._families.values():
                await rules.retire()
            self._retired = True
        except CommandError as error:
            if str(error) != self._told:
                self._told = str(error)
                log.warning("rules of an earlier run cannot be removed yet", error=error)

    async def cleanup(self) -> None:
        """Remove all that is ours in both modes, and nothing else. Nothing there is success."""
        for rules in self._families.values():
            await rules.cleanup()
