"""The kernel's side of the nftables backend."""

from collections.abc import Callable, Collection, Mapping

from controlloop.command import CommandError, own_processes
from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.nft.kernel import NftTable
from controlloop.nft.state import Chain, Key, Value
from controlloop.nft.watch import NftWatch
from proxy.backend import Ahead
from proxy.nftables.constant import constant_objects
from proxy.node import Surroundings

TABLE = "netproxy"


class TableBackend(NftTable):
    """One family's table of ours."""

    asking_changes = False
    may_last = True

    async def ahead(self) -> Ahead[Key, Value] | None:
        return self if await self.is_blank() else None

    def goes_ahead(self, key: Key, value: Value) -> bool:
        """No packet comes to a table without hooks. What is planned names only what was planned before."""
        del key
        return not (isinstance(value, Chain) and value.hook)

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
        return NftWatch(self._family, self._name, desired, own_processes)

    def kind(self, key: Key) -> str:
        return key.kind


class NftablesBackend(TableBackend):
    """The table `netproxy`."""

    def __init__(self, family: Family) -> None:
        # Whatever the surroundings, containers and hooks are the same.
        constant = dict(constant_objects(Surroundings(family)))
        super().__init__(family, TABLE, lambda: constant)
