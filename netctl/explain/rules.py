"""Reads the rules that `netctl explain` walks through, as far as it needs them.

What is quick differs: of nftables, a listing of everything without elements; of iptables-nft, single chains; of
iptables-legacy, whole tables.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path

import msgspec

from controlloop.command import CommandError
from controlloop.family import Family
from netctl.explain.iptables_shapes import is_closed, is_shown
from netctl.explain.kernel import KernelSight, output
from netctl.explain.nft_requests import NamedChain
from netctl.explain.walk import Ruleset
from netctl.explain.walk_iptables import CHAINS, IptablesRules, ListChain, NftRule, is_builtin
from netctl.explain.walk_nftables import Entry, NftTable, nft_tables

ABSENT = 1
"""Exit status for a chain that is not there."""
NOT_SHOWN = ("is incompatible, use 'nft' tool", "Parsing nftables rule failed")
"""Of a chain that iptables cannot read, and of one that is in no table."""


class RuleReader:
    """Of one family, in the network namespace of the calling thread. CommandError when rules cannot be read."""

    def __init__(self, family: Family, sight: KernelSight) -> None:
        self._family = family
        self._sight = sight
        self._natives: dict[str, NftTable] = {}

    def rulesets(self) -> Iterator[Ruleset]:
        """All rules that a packet of the family may meet."""
        own, shared = self._sight.nft_tables(self._family.nft), self._sight.nft_tables("inet")
        through_nft = {table for table, _ in self._builtin if table in own}
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
        natives = [chain for chain in self._base_chains if chain.table in tables and not is_builtin(*chain)]
        for name in sorted({chain.table for chain in natives}):
            table = self._native_table(name)
            for entry in (entry for chain in natives if chain.table == name for entry in table.read_chain(chain.name)):
                add_to(table, name, entry)
            yield table

    def _native_table(self, name: str) -> NftTable:
        """What nft has put into a table of iptables: its sets and maps; chains are read when they are met."""
        family = self._family.nft
        if name not in self._natives:
            table = NftTable(family, name, self._sight, partial(listed, "chain", family, name))
            for entry in (*listed("sets", family), *listed("maps", family)):
                add_to(table, name, entry)
            self._natives[name] = table
        return self._natives[name]

    @cached_property
    def _base_chains(self) -> list[NamedChain]:
        return list(self._sight.base_chains(self._family.nft))

    @cached_property
    def _builtin(self) -> set[tuple[str, str]]:
        """Table and name of each chain that a packet comes to through iptables-nft."""
        return {(chain.table, chain.name) for chain in self._base_chains if is_builtin(*chain)}

    def _legacy_tables(self) -> set[str]:
        family = "ip" if self._family is Family.V4 else "ip6"
        try:
            return set(Path(f"/proc/thread-self/net/{family}_tables_names").read_text().split())
        except OSError:
            return set()

    def _iptables(self, variant: str, tables: set[str]) -> IptablesRules:
        legacy = LegacyTables(self._program("legacy", "save"))
        chains: ListChain = self._list_chain if variant == "nft" else legacy.chain
        return IptablesRules(tables, chains, self._sight, self._program(variant), self._native_table)

    def _program(self, variant: str, action: str = "") -> str:
        base = "iptables" if self._family is Family.V4 else "ip6tables"
        return "-".join(filter(None, (base, variant, action)))

    def _list_chain(self, table: str, chain: str) -> Sequence[str | NftRule]:
        """Rules that iptables prints as they are, and rules of nft."""
        if chain.lower() in CHAINS and (table, chain) not in self._builtin:
            return []
        lines = self._printed(table, chain)
        shapes = self._sight.rule_shapes(table, chain)
        distorted = {shape.handle for shape in shapes if not is_shown(self._family.nft, shape.expressions)}
        if lines is not None and not distorted:
            return lines
        head, natives = self._native_chain(table, chain)
        if lines is None or len(lines) - 1 != len(shapes):
            return [*head, *natives.values()]
        # What nft cannot read nobody but iptables wrote.
        chosen = {handle: rule for handle, rule in natives.items() if handle in distorted and not is_closed(rule)}
        return [lines[0], *(chosen.get(shape.handle, line) for shape, line in zip(shapes, lines[1:], strict=True))]

    def _printed(self, table: str, chain: str) -> list[str] | None:
        """Lines of iptables, the first of which is no rule; none where there is no such chain, None where it cannot."""
        try:
            return output([self._program("nft"), "-t", table, "-S", chain]).decode(errors="replace").splitlines()
        except CommandError as error:
            if any(words in error.stderr for words in NOT_SHOWN):
                return None
            if error.returncode != ABSENT:
                raise
            return []

    def _native_chain(self, table: str, chain: str) -> tuple[list[str], dict[int, NftRule]]:
        """As nft has it: a head like that of iptables, and rules by handle. Both empty where there is none."""
        try:
            entries = listed("chain", self._family.nft, table, chain)
        except CommandError:
            return [], {}
        head = next(entry["chain"] for entry in entries if "chain" in entry)
        rules = (entry["rule"] for entry in entries if "rule" in entry)
        policy = f"-P {chain} {head['policy'].upper()}" if "policy" in head else f"-N {chain}"
        return [policy], {rule["handle"]: rule for rule in rules}


def listed(*words: str) -> Sequence[Entry]:
    """As nft lists them, without elements."""
    entries: Sequence[Entry] = msgspec.json.decode(output(["nft", "--json", "--terse", "list", *words]))["nftables"]
    return entries


def add_to(table: NftTable, name: str, entry: Entry) -> None:
    """What of a listing is of that table."""
    for kind, item in entry.items():
        if item.get("table") == name:
            table.add(kind, item)


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
