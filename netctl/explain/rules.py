"""Reads the rules that `netctl explain` walks through, as far as it needs them.

What is quick differs: of nftables, a listing of everything without elements; of iptables-nft, single chains; of
iptables-legacy, whole tables.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from controlloop.command import CommandError
from controlloop.family import Family
from netctl.explain.kernel import KernelSight, output
from netctl.explain.walk import NotOfIptablesError, Ruleset
from netctl.explain.walk_iptables import PRIORITIES, IptablesRules, is_builtin
from netctl.explain.walk_nftables import Entry, NftTable, nft_tables

ANY_CHAIN = "OUTPUT"
"""Every table of iptables has it."""
ABSENT = 1
"""Exit status for a chain that is not there, and for one that iptables cannot read."""

NOT_SHOWN = "is incompatible, use 'nft' tool"


class RuleReader:
    """Of one family, in the network namespace of the calling thread. CommandError when rules cannot be read."""

    def __init__(self, family: Family, sight: KernelSight) -> None:
        self._family = family
        self._sight = sight
        self._native: set[str] = set()
        """Tables that have names of iptables, and are asked for from nft nevertheless."""

    def rulesets(self) -> Iterator[Ruleset]:
        """All rules that a packet of the family may meet. NotOfIptablesError, also when chains are read later."""
        own, shared = self._sight.nft_tables(self._family.nft), self._sight.nft_tables("inet")
        through_nft = {name for name in own & PRIORITIES.keys() - self._native if self._list_chain(name, ANY_CHAIN)}
        if through_nft:
            yield self._iptables("nft", through_nft)
            yield from self._beside_iptables(through_nft)
        if legacy := self._legacy_tables():
            yield self._iptables("legacy", legacy)
        yield from self._nftables(self._family.nft, own - through_nft, beside_iptables=bool(through_nft))
        yield from self._nftables("inet", shared, beside_iptables=False)

    def _nftables(self, family: str, tables: set[str], *, beside_iptables: bool) -> Iterator[Ruleset]:
        """At once where nothing large is listed along: asked for one table, nft 1.0.6 reads its elements, too."""
        if not tables:
            return
        single = beside_iptables and bool(self._list_chain("nat", "NETPROXY-SERVICES"))
        for words in [["table", family, name] for name in sorted(tables)] if single else [["ruleset", family]]:
            for table in nft_tables(listed(*words), frozenset({family}), self._sight):
                if table.name.split(" ", 1)[1] in tables:
                    yield table

    def _beside_iptables(self, tables: set[str]) -> Iterator[Ruleset]:
        """What nft has put into tables of iptables, which iptables does not print."""
        family = self._family.nft
        named = [chain for chain in self._sight.base_chains(family) if chain.table in tables]
        natives = [chain for chain in named if not is_builtin(*chain)]
        containers = [*listed("sets", family), *listed("maps", family)] if natives else []
        for name in sorted({chain.table for chain in natives}):
            table = NftTable(family, name, self._sight, partial(listed, "chain", family, name))
            chains = [entry for chain in natives if chain.table == name for entry in table.read_chain(chain.name)]
            for kind, item in (pair for entry in [*containers, *chains] for pair in entry.items()):
                if item.get("table") == name:
                    table.add(kind, item)
            yield table

    def _legacy_tables(self) -> set[str]:
        family = "ip" if self._family is Family.V4 else "ip6"
        try:
            return set(Path(f"/proc/thread-self/net/{family}_tables_names").read_text().split())
        except OSError:
            return set()

    def _iptables(self, variant: str, tables: set[str]) -> IptablesRules:
        chains = self._list_chain if variant == "nft" else LegacyTables(self._program("legacy", "save")).chain
        return IptablesRules(tables, chains, self._sight, self._program(variant))

    def _program(self, variant: str, action: str = "") -> str:
        base = "iptables" if self._family is Family.V4 else "ip6tables"
        return "-".join(filter(None, (base, variant, action)))

    def _list_chain(self, table: str, chain: str) -> list[str]:
        try:
            return output([self._program("nft"), "-t", table, "-S", chain]).decode(errors="replace").splitlines()
        except CommandError as error:
            if error.returncode != ABSENT:
                raise
            # Of a chain that is in no table iptables says so, too: nothing else comes of asking twice.
            if NOT_SHOWN in error.stderr and table not in self._native:
                self._native.add(table)
                raise NotOfIptablesError(table) from None
            return []


def listed(*words: str) -> Sequence[Entry]:
    """As nft lists them, without elements."""
    entries: Sequence[Entry] = msgspec.json.decode(output(["nft", "--json", "--terse", "list", *words]))["nftables"]
    return entries


class LegacyTables:
    """Each table is read once: it takes as long as one chain of it."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._tables: dict[str, bytes] = {}

    def chain(self, table: str, chain: str) -> Sequence[str]:
        if table not in self._tables:
            self._tables[table] = output([self._program, "-t", table])
        return chain_in(self._tables[table], chain)


def chain_in(saved: bytes, chain: str) -> list[str]:
    """One chain of a table that iptables-save printed, as `iptables -S` has it; empty when it is not there.

    A table has ten thousand chains, and a packet meets ten: the others are not even split into lines.
    """
    lines = []
    if (start := saved.find(f"\n:{chain} ".encode())) >= 0:
        name, policy, *_ = saved[start + 2 : saved.index(b"\n", start + 1)].decode().split()
        lines = [f"-P {name} {policy}" if policy != "-" else f"-N {name}"]
    first = saved.find(rule := f"\n-A {chain} ".encode())
    if first >= 0:
        # Rules of one chain stand together.
        end = saved.index(b"\n", saved.rindex(rule) + 1)
        lines += saved[first + 1 : end].decode(errors="replace").split("\n")
    return lines
