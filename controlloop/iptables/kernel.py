"""Reads and writes the rules of one family through the programs of the iptables variant that the host uses.

The two variants keep separate rulesets that both see every packet; rules written with one are invisible to the
other. So the variant is part of a program's name here, and never left to /etc/alternatives.

- nft: a transaction replaces only the chains that it names. Any user with CAP_NET_ADMIN may write.
- legacy: the kernel swaps the whole table at each change, which starts every round robin anew. Needs CAP_NET_RAW
  too, and write access to /run/xtables.lock or to the file that XTABLES_LOCKFILE names.
"""

import asyncio
import re
from collections.abc import Collection, Mapping
from enum import Enum
from pathlib import Path

from controlloop.command import CommandError, Fed, find, run
from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.iptables.chains import Key, Owned, Rules
from controlloop.iptables.listing import parse
from controlloop.iptables.transaction import render, render_part
from controlloop.nft.names import chains_of

LOCK_WAIT_S = 5
AHEAD = "nat"
"""The table of which changes go ahead of others."""
NO_CHAIN = 1
"""Exit status for a chain that is not there."""
NO_TABLE = "Table does not exist"
"""What iptables-legacy says of a table that this kernel was built without."""
_BAD_LINE = re.compile(r"line:? (\d+)")


class Variant(Enum):
    NFT = "nft"
    LEGACY = "legacy"


def program_name(family: Family, variant: Variant | None = None, action: str = "") -> str:
    """The host's own choice without a variant: `ip6tables`; else `ip6tables-nft-save`."""
    words = ["iptables" if family is Family.V4 else "ip6tables", variant.value if variant else "", action]
    return "-".join(filter(None, words))


async def detect_variant(family: Family) -> Variant:
    """What the host's `iptables` is. Before 1.8 there was only legacy, which did not say so."""
    program = program_name(family)
    if variant := variant_by_name(program):
        return variant
    version = await run([program, "--version"])
    return Variant.NFT if b"(nf_tables)" in version else Variant.LEGACY


def variant_by_name(program: str) -> Variant | None:
    """None when its links do not lead to where they do since 1.8; then it has to be asked."""
    name = Path(find(program)).resolve().name
    return next((each for each in Variant if name == f"xtables-{each.value}-multi"), None)


class IptablesChains:
    """The owned chains of one family, in the network namespace of this process. Without a variant: the host's."""

    def __init__(self, family: Family, owned: Owned, variant: Variant | None = None) -> None:
        self._owned = owned
        self._family = family
        self._variant = variant
        self._begun: Fed | None = None
        """A transaction of table AHEAD that is under way."""

    async def variant(self) -> Variant:
        if self._variant is None:
            self._variant = await detect_variant(self._family)
        return self._variant

    async def _program(self, action: str) -> str:
        return program_name(self._family, await self.variant(), action)

    async def dump(self) -> Mapping[Key, Rules]:
        """CommandError when a table cannot be read, for instance one in which nft put what iptables cannot say.

        A transaction that is under way is given up.
        """
        if self._begun:
            self._begun.abandon()
            self._begun = None
        return parse((await self._saved()).decode(errors="replace"), self._owned)

    async def is_blank(self) -> bool:
        """There is no chain of ours. A jump to us is not there without its chain."""
        saved = await self._saved()
        return not any(b"\n:" + prefix.encode() in saved for prefix in self._owned.prefixes)

    async def _saved(self) -> bytes:
        program = await self._program("save")
        # Each table is named: only root may read the list of tables in /proc/net.
        return b"".join(await asyncio.gather(*(_saved(program, table) for table in await self._tables())))

    async def _tables(self) -> Collection[str]:
        """Those that may have something of ours."""
        tables = self._owned.tables
        if await self.variant() is Variant.LEGACY or (chains := await chains_in_nf_tables(self._family)) is None:
            return tables
        ours = {table for table, chain in chains if self._owned.is_ours(chain)}
        return [table for table in tables if table in ours]

    async def look(self, keys: Collection[Key]) -> Mapping[Key, Rules]:
        """These chains as they are now, without reading all the others; those that are missing are left out."""
        program = await self._program("")
        found: dict[Key, Rules] = {}
        for table, chain in keys:
            try:
                listing = await run([program, "--table", table, "--list-rules", chain])
            except CommandError as error:
                if error.returncode == NO_CHAIN:
                    continue
                raise
            found |= parse(f"*{table}\n{listing.decode(errors='replace')}", self._owned)
        return found

    async def begin(self, delta: Delta[Key, Rules]) -> None:
        """Let the program read changes of table AHEAD while those that follow are made; `apply` writes all of them.

        It holds the lock of iptables-legacy from now on. When we end before `apply`, nothing is changed.
        """
        text = render_part(AHEAD, delta, self._owned)
        if self._begun is None:
            self._begun, text = Fed(await self._restore()), f"*{AHEAD}\n{text}"
        self._begun.feed(text.encode())

    async def apply(self, delta: Delta[Key, Rules]) -> None:
        """CommandError with the refused line. That table is unchanged then; an earlier one has its changes."""
        begun, self._begun = self._begun, None
        if begun:
            await begun.end(render(delta, self._owned, AHEAD).encode())
        elif text := render(delta, self._owned):
            await self._write(text)

    async def _write(self, text: str) -> None:
        try:
            await run(await self._restore(), text.encode())
        except CommandError as error:
            raise CommandError(error.argv, error.returncode, _with_line(error.stderr, text)) from error

    async def _restore(self) -> list[str]:
        return [await self._program("restore"), "--noflush", "--wait", str(LOCK_WAIT_S)]

    async def cleanup(self) -> None:
        await self.apply(Delta(drop=dict(await self.dump())))


async def chains_in_nf_tables(family: Family) -> set[tuple[str, str]] | None:
    """Table and chain of each, whoever wrote them; None where the kernel does not say."""
    # 20,000 chains take up to half a second; meanwhile the loop goes on.
    return await asyncio.to_thread(chains_of, family)


async def _saved(program: str, table: str) -> bytes:
    try:
        return await run([program, "-t", table])
    except CommandError as error:
        if NO_TABLE not in error.stderr:
            raise
        return b""


def _with_line(stderr: str, text: str) -> str:
    """iptables-restore tells the number of a line that nobody has; say what it was."""
    message = " ".join(stderr.split())
    found = _BAD_LINE.search(message)
    lines = text.split("\n")
    if found is None or not 0 < int(found[1]) <= len(lines):
        return message
    return f"{message}; the line is: {lines[int(found[1]) - 1]}"
