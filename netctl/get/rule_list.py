"""`netctl get rules`: what the kernel holds of our rules, whichever program wrote them, and for whom each is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from controlloop.command import NOT_INSTALLED, CommandError
from controlloop.nft.state import Chain, Container, Key
from netagent.instance import LIMIT, Instance
from netctl.actual.iptables import counted_rules, saved
from netctl.actual.nft import COUNTERS, read_elements, read_skeleton
from netctl.diff.drift import NOBODY
from netctl.get.daemon_pages import Silent, Wanted, desired_page, wanted_by_place
from netctl.get.kernel_list import print_list
from netctl.node import PROXY, Node
from netctl.output import Column, Item, Listing

FAMILIES = {"ip": "iptables", "ip6": "ip6tables"}
VARIANTS = ("nft", "legacy")
PREFIXES = {PROXY: "NETPROXY-"} | {Instance(n).program: Instance(n).chain_prefix for n in range(LIMIT + 1)}


class Found(NamedTuple):
    """A rule or an element in the kernel."""

    key: tuple[str, ...]
    """By which it has owners."""
    place: str
    chain: str
    in_chain: tuple[str, ...]
    rule: str
    label: str = ""
    """A comment of ours."""
    counted: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """By which it is known to who wants it."""
        return "" if self.in_chain[0] == "element" else self.label or self.rule


@dataclass(frozen=True, slots=True)
class Writer:
    """A daemon's rules in one family and one place."""

    daemon: str
    family: str
    place: str
    """A table of nftables, or the program that lists rules of iptables."""
    wanted: Wanted | None
    """None: nobody can tell."""

    def item(self, found: Found) -> Item:
        owner = self.wanted.owner(found.key, found.in_chain, found.name) if self.wanted else NOBODY
        return {
            "place": found.place,
            "chain": found.chain,
            "rule": found.rule,
            "purpose": found.label.partition(" #")[0] or None,
            "daemon": self.daemon,
            "owner": owner.name or None,
            "other_owners": owner.others,
            "packets": found.counted[0] if found.counted else None,
            "bytes": found.counted[1] if found.counted else None,
        }

    def is_for(self, key: tuple[str, ...], name: str) -> bool:
        return not name or (self.wanted is not None and name in self.wanted.owners.names(key))


def show(node: Node, name: str, form: str) -> int:
    """With a `name`, only the rules that are there for this Service or peer."""
    return print_list(lambda silent: rules(node, name, silent), listing, form)


def rules(node: Node, name: str, silent: Silent) -> Iterator[Item]:
    """CommandError when a program that is there cannot read them."""
    for daemon in node.daemons:
        wanted = wanted_by_place(daemon, desired_page(node, daemon, silent))
        for family, base in FAMILIES.items():
            tables = (PROXY, COUNTERS) if daemon == PROXY else (daemon,)
            programs = [f"{base}-{each}-save" for each in VARIANTS if may_hold_rules(node, family, each)]
            for place in *tables, *programs:
                writer = Writer(daemon, family, place, wanted.get((family, place)))
                found = table_rules(node, writer) if place in tables else chain_rules(node, writer)
                yield from (writer.item(each) for each in found if writer.is_for(each.key, name))


def may_hold_rules(node: Node, family: str, variant: str) -> bool:
    """To ask for tables of iptables-legacy would set them up."""
    if variant == "nft":
        return True
    try:
        return bool(node.text(f"/proc/net/{family}_tables_names").split())
    except OSError:
        return False


def table_rules(node: Node, writer: Writer) -> Iterator[Found]:
    place = f"{writer.family} {writer.place}"
    try:
        state = read_skeleton(node, writer.family, writer.place)
    except CommandError as error:
        if error.returncode == NOT_INSTALLED:
            return
        raise
    for key, value in state.items():
        if isinstance(value, Chain):
            yield from (Found(key, place, key.name, key, rule.text, rule.label) for rule in value.rules)
    for key, value in state.items():
        if isinstance(value, Container) and not value.is_dynamic:
            # The kernel lists them in whatever order.
            for element in sorted(read_elements(node, writer.family, writer.place, key.name, value)):
                own = Key("element", key.name, element.key)
                text = f"{element.key} : {element.value}" if element.value else element.key
                yield Found(own, place, f"@{key.name}", own, text, counted=element.counted)


def chain_rules(node: Node, writer: Writer) -> Iterator[Found]:
    try:
        text = saved(node, writer.place)
    except CommandError as error:
        if error.returncode == NOT_INSTALLED:
            return
        raise
    for found in counted_rules(text, (PREFIXES[writer.daemon],)):
        chain, rule = (found.table, found.chain), (found.table, found.rule)
        # A rule has an owner of its own where its chain is everybody's.
        key = rule if writer.wanted and writer.wanted.owners.names(rule) else chain
        place = f"{writer.place.removesuffix('-save')} {found.table}"
        yield Found(key, place, found.chain, chain, found.rule, counted=(found.packets, found.bytes))


def listing(items: list[Item]) -> Listing:
    columns = (
        Column("OWNER", owner_text),
        Column("CHAIN OR SET", lambda item: item["chain"]),
        Column("RULE", lambda item: item["purpose"] or item["rule"]),
        Column("PLACE", lambda item: item["place"], wide=True),
        Column("PACKETS", lambda item: item["packets"], right=True, wide=True),
        Column("BYTES", lambda item: item["bytes"], right=True, wide=True),
        Column("TEXT", lambda item: item["rule"] if item["purpose"] else None, wide=True),
    )
    return Listing("RuleList", items, columns, lambda item: f"rule/{item['place']}/{item['chain']}/{item['rule']}")


def owner_text(item: Item) -> str:
    name = (item["owner"] or "-").removeprefix("Service ")
    return f"{name} +{item['other_owners']}" if item["other_owners"] else name
