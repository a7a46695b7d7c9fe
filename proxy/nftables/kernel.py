"""The kernel's side of the nftables backend: the only file here with effects."""

from collections.abc import Mapping

from controlloop.command import CommandError, run
from controlloop.delta import Delta
from controlloop.family import Family
from proxy.nftables.desired import constant_objects
from proxy.nftables.diff import transaction
from proxy.nftables.listing import parse
from proxy.nftables.state import TABLE, Chain, Key, Value


class NftablesBackend:
    """One family's table `netproxy`. Nothing outside that table is read or written."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._skeleton = skeleton(dict(constant_objects(family, None)))

    async def dump(self) -> Mapping[Key, Value]:
        """The table as it is; empty when it is missing, or when its sets, maps or hooks are not as we make them.

        In that case it can only be replaced whole: `diff` against an empty state puts everything.
        """
        try:
            listing = await run(["nft", "--json", "list", "table", self._family.nft, TABLE])
        except CommandError as error:
            if "No such file or directory" in error.stderr:
                return {}
            raise
        state = parse(listing)
        return state if self._skeleton.items() <= skeleton(state).items() else {}

    async def apply(self, delta: Delta[Key, Value]) -> None:
        await run(["nft", "--file", "-"], transaction(self._family, delta).encode())

    async def cleanup(self) -> None:
        table = f"{self._family.nft} {TABLE}"
        # Adding first makes the deletion succeed whether or not the table is there.
        await run(["nft", "--file", "-"], f"add table {table}\ndelete table {table}\n".encode())


def skeleton(state: Mapping[Key, Value]) -> dict[Key, object]:
    """What the kernel cannot change in place: containers with their types, base chains with their hooks."""
    return {
        key: value.hook if isinstance(value, Chain) else value
        for key, value in state.items()
        if key.kind == "container" or (isinstance(value, Chain) and value.hook is not None)
    }
