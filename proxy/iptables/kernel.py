"""The kernel's side of the iptables backend."""

from collections.abc import Callable, Mapping

from controlloop.command import CommandError, own_processes
from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.iptables.chains import Key, Rules
from controlloop.iptables.kernel import IptablesChains, Variant
from controlloop.iptables.watch import IptablesWatch
from proxy.iptables.chains import OURS


class IptablesBackend(IptablesChains):
    """One family's chains `NETPROXY-*`. Without a variant: the host's."""

    asking_changes = True
    """iptables-restore --test does not ask the kernel."""

    def __init__(self, family: Family, variant: Variant | None = None) -> None:
        super().__init__(family, OURS, variant)

    async def refusal(self, delta: Delta[Key, Rules]) -> CommandError | None:
        try:
            await self.apply(delta)
        except CommandError as error:
            return error
        return None

    async def watch(self, desired: Callable[[], Mapping[Key, Rules]]) -> IptablesWatch | None:
        """Nobody tells of changes in legacy tables."""
        del desired  # chains are read by name, whatever should be in them
        if await self.variant() is Variant.LEGACY:
            return None
        return IptablesWatch(self._family, OURS, own_processes)

    def kind(self, key: Key) -> str:
        return "chain" if OURS.is_ours(key[1]) else "jump"
