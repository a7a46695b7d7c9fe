"""The kernel's side of the nftables backend."""

from collections.abc import Callable, Collection, Iterable, Mapping

from controlloop.command import CommandError, own_processes
from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.nft.dump import counts_of
from controlloop.nft.kernel import NftTable
from controlloop.nft.state import Key, Value
from controlloop.nft.transaction import is_unreachable
from controlloop.nft.watch import NftWatch
from proxy.backend import Ahead
from proxy.nftables.constant import ADDRESS_TYPE, constant_objects
from proxy.nftables.counting import CONNECTIONS, TRAFFIC, types
from proxy.node import Surroundings

TABLE = "netproxy"


class NftablesBackend(NftTable):
    """One family's table `netproxy`."""

    asking_changes = False

    def __init__(self, family: Family, *, service_counters: bool = False) -> None:
        # The other surroundings stand in rules alone, and those can be changed in place.
        constant = dict(constant_objects(Surroundings(family, service_counters=service_counters)))
        super().__init__(family, TABLE, lambda: constant)

    async def ahead(self) -> Ahead[Key, Value] | None:
        return self if await self.is_blank() else None

    def goes_ahead(self, key: Key, value: Value) -> bool:
        return is_unreachable(key, value)

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


def read_counts(families: Iterable[Family]) -> dict[tuple[str, tuple[int, str]], int]:
    """By metric (`connections`, `bytes`), version of IP and called place (`counting.place`). Blocks. OSError."""
    found = {}
    for family in families:
        for name, type_ in types(CONNECTIONS, ADDRESS_TYPE[family]):
            for place, count in counts_of(family, TABLE, name, type_).items():
                found["connections", (family.value, place)] = count.packets
        for name, type_ in types(TRAFFIC, ADDRESS_TYPE[family]):
            for place, count in counts_of(family, TABLE, name, type_).items():
                found["bytes", (family.value, place)] = count.bytes
    return found
