"""The kernel's side of the nftables backend."""

from collections.abc import Callable, Collection, Mapping

from controlloop.command import CommandError, own_processes
from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.nft.kernel import NftTable
from controlloop.nft.state import Key, Value
from controlloop.nft.watch import NftWatch
from proxy.nftables.constant import constant_objects
from proxy.node import Surroundings

TABLE = "netproxy"


class NftablesBackend(NftTable):
    """One family's table `netproxy`."""

    asking_changes = False

    def __init__(self, family: Family) -> None:
        # The surroundings stand in rules alone, and those can be changed in place.
        constant = dict(constant_objects(Surroundings(family)))
        super().__init__(family, TABLE, lambda: constant)

    async def refusal(self, delta: Delta[Key, Value]) -> CommandError | None:
        try:
            await self.check(delta)
        except CommandError as error:
            return error
        return None

    async def look(self, keys: Collection[Key]) -> Mapping[Key, Value]:
        state = await self.dump()
        return {key: state[key] for key in keys if key in state}

    async def watch(self, desired: Callable[[], Mapping[Key, Value]]) -> NftWatch:
        return NftWatch(self._family, TABLE, desired, own_processes)

    def kind(self, key: Key) -> str:
        return key.kind
