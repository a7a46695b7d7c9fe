"""The kernel's side of a table of ours: the only file here with effects."""

from collections.abc import Callable, Mapping

from controlloop.command import CommandError, run
from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.nft.listing import parse
from controlloop.nft.state import Chain, Key, Value
from controlloop.nft.transaction import transaction

ABSENT = "No such file or directory"


class NftTable:
    """One table of one family, in the network namespace of this process. Nothing outside it is read or written."""

    def __init__(self, family: Family, name: str, constant: Callable[[], Mapping[Key, Value]]) -> None:
        """`constant` gives the part of the desired state that holds the containers and base chains."""
        self._family = family
        self._name = name
        self._constant = constant

    async def dump(self) -> Mapping[Key, Value]:
        """The table as it is; empty when it is missing, or when its sets, maps or hooks are not as we make them.

        In that case it can only be replaced whole: `diff` against an empty state puts everything.
        """
        try:
            listing = await run(["nft", "--json", "list", "table", self._family.nft, self._name])
        except CommandError as error:
            if ABSENT in error.stderr:
                return {}
            raise
        state = parse(listing)
        return state if skeleton(self._constant()).items() <= skeleton(state).items() else {}

    async def apply(self, delta: Delta[Key, Value]) -> None:
        await run(["nft", "--file", "-"], transaction(self._family, self._name, delta).encode())

    async def check(self, delta: Delta[Key, Value]) -> None:
        """Let the kernel judge the change, and take it back: CommandError when `apply` would fail."""
        await run(["nft", "--check", "--file", "-"], transaction(self._family, self._name, delta).encode())

    async def cleanup(self) -> None:
        await delete_table(self._family, self._name)


async def delete_table(family: Family, name: str) -> None:
    """Nothing there is success, and then nobody who monitors the ruleset hears of it."""
    try:
        await run(["nft", "delete", "table", family.nft, name])
    except CommandError as error:
        if ABSENT not in error.stderr:
            raise


def skeleton(state: Mapping[Key, Value]) -> dict[Key, object]:
    """What the kernel cannot change in place: containers with their types, base chains with their hooks."""
    return {
        key: value.hook if isinstance(value, Chain) else value
        for key, value in state.items()
        if key.kind == "container" or (isinstance(value, Chain) and value.hook is not None)
    }
