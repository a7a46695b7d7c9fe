"""The kernel's side of the iptables backend."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace

from controlloop.command import NOT_INSTALLED, CommandError, own_processes, run
from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.iptables.chains import Key, Rules
from controlloop.iptables.kernel import AHEAD, NO_CHAIN, IptablesChains, Variant, chains_in_nf_tables, program_name
from controlloop.iptables.legacy_watch import LegacyWatch
from controlloop.iptables.watch import IptablesWatch
from proxy.backend import Ahead
from proxy.iptables.address_sets import AddressSets
from proxy.iptables.balancing import MEMORY_PREFIX, Memory
from proxy.iptables.chains import OURS, PREFIX, SET, SET_TABLE, set_key
from proxy.iptables.loopback import GUARD, Loopback
from proxy.iptables.portions import portions
from proxy.iptables.service_rules import SERVICE_CHAINS

KUBE_PROXY = "KUBE-SERVICES"
RELEASE_S, RELEASE_TURN_S = 2.0, 0.02
"""nf_tables lets go of a set some time after the rule that named it is gone."""


class IptablesBackend(IptablesChains):
    """One family's chains `NETPROXY-*` and the sets that they name. Without a variant: the host's."""

    asking_changes = True
    """iptables-restore --test does not ask the kernel."""
    may_last = False
    """The lock of legacy tables is held."""

    def __init__(self, family: Family, variant: Variant | None = None) -> None:
        # Only IPv4 has localhost node ports, which are what needs a guard in table raw.
        super().__init__(family, OURS if family is Family.V4 else replace(OURS, tables=("nat", "filter")), variant)
        self._sets = AddressSets(family, MEMORY_PREFIX[family])
        self._loopback = Loopback()
        self._released: set[str] = set()
        """Sets that no rule of ours names any more and that could not be removed yet."""
        self._legacy: LegacyWatch | None = None

    async def ahead(self) -> "Ahead[Key, Rules] | None":
        """iptables-nft takes more than twice the time when chains do not come in the order of their names."""
        return self if await self.variant() is Variant.LEGACY and await self.is_blank() else None

    def goes_ahead(self, key: Key, rules: Rules) -> bool:
        """A rule can name only what is there: neither chains nor sets of ours are yet."""
        table, chain = key
        return table == AHEAD and chain.startswith(SERVICE_CHAINS) and not any(f" {PREFIX}" in rule for rule in rules)

    async def apply_ahead(self, delta: Delta[Key, Rules]) -> None:
        await self.begin(delta)

    async def dump(self) -> Mapping[Key, Rules]:
        self._released = self._sets.destroy(self._released)
        rules = dict(await super().dump())
        if GUARD in rules and not self._loopback.is_as_guarded:
            del rules[GUARD]  # it is made again, and the sysctl with it
        return {**rules, **{set_key(name): SET for name in self._sets.names() - self._released}}

    async def apply(self, delta: Delta[Key, Rules]) -> None:
        """See IptablesChains.apply. Sets are made before the rules that name them, and removed after them."""
        wanted = _sets_in(delta.put)
        try:
            self._sets.make(wanted)
        except OSError as error:
            # The kernel refuses a part of the change, as it may refuse a rule.
            raise CommandError(["ipset", "create"], 1, str(error)) from error
        # Who comes back has not been anybody's endpoint meanwhile.
        self._sets.flush(wanted & self._released)
        self._released -= wanted
        if GUARD in delta.drop and GUARD not in delta.put:
            self._loopback.open(wanted=False)
        with self._legacy.writing() if self._legacy else nullcontext():
            # Under legacy each transaction reads and writes the whole table.
            for portion in (delta,) if await self.variant() is Variant.LEGACY else portions(delta):
                await super().apply(portion)
        if GUARD in delta.put:
            self._loopback.open(wanted=True)
        self._released = self._sets.destroy(self._released | _sets_in(delta.drop) - wanted)

    async def refusal(self, delta: Delta[Key, Rules]) -> CommandError | None:
        try:
            await self.apply(delta)
        except CommandError as error:
            return error
        return None

    async def watch(self, desired: Callable[[], Mapping[Key, Rules]]) -> IptablesWatch | LegacyWatch:
        """The kernel tells of changes in nftables; to legacy tables somebody has to look."""
        if await self.variant() is Variant.LEGACY:
            self._legacy = LegacyWatch(self._family, self._owned.tables)
            return self._legacy
        return IptablesWatch(self._family, self._owned, desired, own_processes)

    @property
    def closed_loopback(self) -> bool:
        """Whether this one took the sysctl along that the host's other variant of iptables may need."""
        return self._loopback.was_closed

    def kind(self, key: Key) -> str:
        if key[0] == SET_TABLE:
            return "set"
        return "chain" if OURS.is_ours(key[1]) else "jump"

    async def cleanup(self) -> None:
        """See controlloop.sync.Backend. Sets that the other variant's rules name are left to that variant."""
        held = dict(await self.dump())
        await self.apply(Delta(drop=held))
        if held.keys() == {set_key(name) for name in _sets_in(held)}:
            return
        for _ in range(round(RELEASE_S / RELEASE_TURN_S)):
            if not self._released:
                return
            await asyncio.sleep(RELEASE_TURN_S)
            self._released = self._sets.destroy(self._released)


LIMITED = "100 clients of an endpoint are remembered, or as many as xt_recent was told"
"""Also how netctl knows this from what makes a Service unreadable."""


def _sets_in(state: Mapping[Key, Rules]) -> set[str]:
    return {name for table, name in state if table == SET_TABLE}


def affinity_memory(family: Family) -> Memory:
    """What can remember clients here."""
    return Memory.RECENT if affinity_limit(family) else Memory.SETS


def affinity_limit(family: Family) -> str:
    """What affinity lacks here; empty: nothing."""
    try:
        AddressSets(family, MEMORY_PREFIX[family]).check()
    except OSError as error:
        return f"{LIMITED}: sets of addresses need CAP_NET_RAW and a kernel that has them ({error})"
    return ""


async def holds_kube_proxy(family: Family, variant: Variant) -> bool:
    """Whether rules of kube-proxy's iptables mode are there, which would translate connections before or after us."""
    chains = await chains_in_nf_tables(family) if variant is Variant.NFT else None
    if chains is not None and ("nat", KUBE_PROXY) not in chains:
        return False
    try:
        await run([program_name(family, variant), "--table", "nat", "--list-rules", KUBE_PROXY, "1"])
    except CommandError as error:
        if error.returncode in {NO_CHAIN, NOT_INSTALLED}:
            return False
        raise
    return True
