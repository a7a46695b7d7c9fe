"""The kernel's side of a table of ours: the only file here with effects."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeGuard

from controlloop.command import CommandError, run
from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.nft.addresses import change, only_addresses
from controlloop.nft.dump import elements_of
from controlloop.nft.listing import parse
from controlloop.nft.names import may_have_table
from controlloop.nft.state import Chain, Container, Key, Value
from controlloop.nft.transaction import emptying, portions, transaction

ABSENT = "No such file or directory"
BUSY = "Device or resource busy"


class NftTable:
    """One table of one family, in the network namespace of this process. Nothing outside it is written."""

    def __init__(self, family: Family, name: str, constant: Callable[[], Mapping[Key, Value]]) -> None:
        """`constant` gives the part of the desired state that holds the containers and base chains."""
        self._family = family
        self._name = name
        self._constant = constant
        self._is_new = False
        """The last look found no such table."""

    async def is_blank(self) -> bool:
        """There is no such table, and none of its elements has to be read to know it."""
        return not await self._look()

    async def _look(self) -> dict[Key, Value]:
        if not may_have_table(self._family, self._name):
            self._is_new = True
            return {}
        # `list table` would read the elements too, of sets that packets fill: there may be millions.
        listing = await run(["nft", "--json", "--terse", "list", "ruleset", self._family.nft])
        state = await asyncio.to_thread(parse, listing, self._name)
        self._is_new = not state
        return state

    async def dump(self) -> Mapping[Key, Value]:
        """The table as it is; empty when it is missing, or when its sets, maps or hooks are of another kind than ours.

        In that case it can only be replaced whole: `diff` against an empty state puts everything.
        """
        state = await self._look()
        wanted, found = skeleton(self._constant()), skeleton(state)
        if any(found.get(key, value) != value for key, value in wanted.items()):
            return {}
        containers = {key.name: value for key, value in state.items() if key in wanted and holds_elements(value)}
        # 50,000 elements take half a second; meanwhile the loop goes on.
        return state | await asyncio.to_thread(self._elements, containers)

    def _elements(self, containers: Mapping[str, Container]) -> dict[Key, Value]:
        return {
            Key("element", name, key): value
            for name, container in containers.items()
            for key, value in elements_of(self._family, self._name, name, container.type).items()
        }

    async def apply(self, delta: Delta[Key, Value]) -> None:
        """One transaction; for a table that does not exist yet perhaps several, of which the last makes it work."""
        is_new, self._is_new = self._is_new, False
        for portion in portions(delta) if is_new else (delta,):
            try:
                await self._write(portion, "--file", "-")
            except CommandError as error:
                if BUSY not in error.stderr:
                    raise
                # Somebody jumps to a chain that goes; and before Linux 6.2 an element lets go of its chain some time
                # after it went. An empty chain does no harm, and the next look at everything finds it.
                await self._write(emptying(portion), "--file", "-")

    async def apply_ahead(self, delta: Delta[Key, Value]) -> None:
        """A part of a table that is blank, to which nothing leads before `apply` writes the rest."""
        await self._write(delta, "--file", "-")

    async def check(self, delta: Delta[Key, Value]) -> None:
        """Let the kernel judge the change, and take it back: CommandError when `apply` would fail."""
        await self._write(delta, "--check", "--file", "-")

    async def _write(self, delta: Delta[Key, Value], *arguments: str) -> None:
        if "--check" not in arguments and only_addresses(delta, self._constant()):
            # What the kernel refuses here nft puts into words.
            with suppress(OSError):
                # In a thread: while somebody loads a large ruleset, the kernel makes others wait.
                await asyncio.to_thread(change, self._family, self._name, delta)
                return
        everything = skeleton(self._constant()).items() <= skeleton(delta.put).items()
        await run(["nft", *arguments], transaction(self._family, self._name, delta, replace=everything).encode())

    async def cleanup(self) -> None:
        await delete_table(self._family, self._name)


async def unless_absent(argv: list[str]) -> bytes:
    """What the program says; nothing when what it is asked about is not there."""
    try:
        return await run(argv)
    except CommandError as error:
        if ABSENT not in error.stderr:
            raise
        return b""


async def delete_table(family: Family, name: str) -> None:
    """Nothing there is success, and then nobody who monitors the ruleset hears of it."""
    if may_have_table(family, name):
        await unless_absent(["nft", "delete", "table", family.nft, name])


def holds_elements(value: Value) -> TypeGuard[Container]:
    """Whether they are ours to look at."""
    return isinstance(value, Container) and not value.is_dynamic


def skeleton(state: Mapping[Key, Value]) -> dict[Key, object]:
    """What the kernel cannot change in place: containers with their types, base chains with their hooks."""
    return {
        key: value.hook if isinstance(value, Chain) else value
        for key, value in state.items()
        if key.kind == "container" or (isinstance(value, Chain) and value.hook is not None)
    }
