"""The rules of one family in the kernel: our table, and our chains where iptables masquerades."""

import asyncio
from collections.abc import Mapping
from typing import Any

from controlloop.family import Family
from controlloop.iptables.chains import Key, Rules
from controlloop.iptables.kernel import IptablesChains, program_name
from controlloop.nft.kernel import NftTable
from controlloop.sync import SyncEngine
from controlloop.wanted import WantedRules
from netagent.firewall.desired import Mode, Policy, chain_objects, table_objects
from netagent.firewall.iptables import owned
from netagent.firewall.kernel import (
    iptables_takes_random_fully,
    nft_takes_fully_random,
    retire_chains,
    retire_flannel,
    retire_table,
)
from netagent.firewall.nftables import TablePlan
from netagent.firewall.translation import Pods


class FamilyRules:
    def __init__(self, family: Family, policy: Policy) -> None:
        self.table = TablePlan(family)
        self._family = family
        self._policy = policy
        self._chains: Mapping[Key, Rules] = {}
        self._random: bool | None = None
        self.nftables = SyncEngine(
            f"nftables-{family.nft}",
            lambda: self.table.objects,
            NftTable(family, policy.instance.program, lambda: self.table.constant),
        )
        self._kernel_chains = IptablesChains(family, owned(policy.instance))
        self._iptables = SyncEngine(f"iptables-{family.nft}", lambda: self._chains, self._kernel_chains)

    @property
    def engines(self) -> list[SyncEngine[Any, Any]]:
        """Those that have something to keep. `Any`: a table and chains have objects of their own."""
        return [
            *([self.nftables] if self.table.constant else []),
            *([self._iptables] if self._chains else []),
        ]

    async def wanted(self) -> list[WantedRules]:
        family, instance, found = self._family, self._policy.instance, list[WantedRules]()
        if self.table.constant:
            objects = dict(self.table.objects)
            found.append(WantedRules("nft", family.nft, instance.program, (), objects, self.table.owned()))
        if self._chains:
            program = program_name(family, await self._kernel_chains.variant(), "save")
            prefixes, everything = owned(instance).prefixes, [(None, list(self._chains))]
            found.append(WantedRules(program, family.nft, "", prefixes, self._chains, everything))
        return found

    async def plan(self, pods: Pods | None) -> None:
        """None: this family has no pods. What changes is not written before a sync that reads everything back."""
        if pods is None:
            table, self._chains = {}, {}
        else:
            fully_random = await self._takes_random()
            table = table_objects(self._policy, pods, fully_random=fully_random)
            self._chains = chain_objects(self._policy, pods, fully_random=fully_random)
        self.table.replace_constant(table, self.nftables.pending)

    async def _takes_random(self) -> bool:
        """Asked of the host once, and only when it matters."""
        settings = self._policy.settings
        if not (settings.ip_masq and settings.random_fully):
            return False
        if self._random is None:
            probe = nft_takes_fully_random if self._policy.mode is Mode.NFTABLES else iptables_takes_random_fully
            self._random = await probe(self._family)
        return self._random

    async def retire(self) -> None:
        """Remove what an earlier run in another mode, and a flanneld, left here."""
        if not self.table.constant:
            await retire_table(self._family, self._policy.instance)
        if not self._chains:
            await retire_chains(self._family, self._policy.instance)
        if self._policy.instance.adopts:
            await retire_flannel(self._family)

    async def cleanup(self) -> None:
        instance = self._policy.instance
        await asyncio.gather(retire_table(self._family, instance), retire_chains(self._family, instance))
