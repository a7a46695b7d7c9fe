"""`netctl get rules`: what the kernel holds of our rules, whichever program wrote them, and for whom each is."""

from collections.abc import Iterator
from dataclasses import dataclass

import click

from controlloop.command import NOT_INSTALLED, CommandError
from controlloop.nft.state import Chain, Container, Key
from netagent.instance import LIMIT, Instance
from netctl.actual.iptables import counted_rules, saved
from netctl.actual.nft import read_elements, read_skeleton
from netctl.actual.refusal import is_refusal
from netctl.diff.drift import NOBODY, Owners
from netctl.exit_codes import OK, REFUSED, UNREACHABLE
from netctl.get.daemon_pages import Silent, desired_page, owners_by_place
from netctl.node import PROXY, Node
from netctl.output import Column, Item, Listing, render_listing
from netctl.terminal import painter

FAMILIES = {"ip": "iptables", "ip6": "ip6tables"}
PREFIXES = {PROXY: "NETPROXY-"} | {Instance(n).program: Instance(n).chain_prefix for n in range(LIMIT + 1)}
WHERE, RULE, OWNER = 20, 32, 24
"""Columns that these take in a table of 80."""


@dataclass(frozen=True, slots=True)
class Writer:
    """A daemon's rules in one family and one program."""

    daemon: str
    family: str
    owners: Owners | None
    """None: nobody can tell."""

    def item(
        self, key: tuple[str, ...], where: tuple[str, str], said: tuple[str, str], counted: tuple[int, int] | None
    ) -> Item:
        """`where`: place and chain; `said`: what it says, and what it is for."""
        owner = self.owners.of(key, NOBODY) if self.owners else NOBODY
        return {
            "place": where[0],
            "chain": where[1],
            "rule": said[0],
            "purpose": said[1] or None,
            "daemon": self.daemon,
            "owner": owner.name or None,
            "other_owners": owner.others,
            "packets": counted[0] if counted else None,
            "bytes": counted[1] if counted else None,
        }

    def is_for(self, key: tuple[str, ...], name: str) -> bool:
        return not name or (self.owners is not None and name in self.owners.names(key))


def show(node: Node, name: str, form: str) -> int:
    """With a `name`, only the rules that are there for this Service or peer."""
    silent = Silent()
    try:
        items = list(rules(node, name, silent))
    except CommandError as error:
        click.echo(f"netctl: {error}", err=True)
        return REFUSED if is_refusal(error) else UNREACHABLE
    for line in silent.lines:
        click.echo(line, err=True)
    if text := render_listing(listing(items, form), form, painter()):
        click.echo(text)
    return UNREACHABLE if silent.reasons else OK


def rules(node: Node, name: str, silent: Silent) -> Iterator[Item]:
    """CommandError when a program that is there cannot read them."""
    for daemon in node.daemons:
        owners = owners_by_place(daemon, desired_page(node, daemon, silent))
        for family, base in FAMILIES.items():
            yield from table_rules(node, Writer(daemon, family, owners.get(("nft", family))), name)
            for variant in ("nft", "legacy"):
                program = f"{base}-{variant}-save"
                if may_hold_rules(node, family, variant):
                    yield from chain_rules(node, program, Writer(daemon, family, owners.get((program, family))), name)


def may_hold_rules(node: Node, family: str, variant: str) -> bool:
    """To ask for tables of iptables-legacy would set them up."""
    if variant == "nft":
        return True
    try:
        return bool(node.text(f"/proc/net/{family}_tables_names").split())
    except OSError:
        return False


def table_rules(node: Node, writer: Writer, name: str) -> Iterator[Item]:
    place = f"{writer.family} {writer.daemon}"
    try:
        state = read_skeleton(node, writer.family, writer.daemon)
    except CommandError as error:
        if error.returncode == NOT_INSTALLED:
            return
        raise
    for key, value in state.items():
        if isinstance(value, Chain) and writer.is_for(key, name):
            for rule in value.rules:
                yield writer.item(key, (place, key.name), (rule.text, rule.label.partition(" #")[0]), None)
    for key, value in state.items():
        if isinstance(value, Container) and not value.is_dynamic:
            yield from element_rules(node, writer, key.name, value, name)


def element_rules(node: Node, writer: Writer, container: str, value: Container, name: str) -> Iterator[Item]:
    for element in read_elements(node, writer.family, writer.daemon, container, value):
        key = Key("element", container, element.key)
        if writer.is_for(key, name):
            text = f"{element.key} : {element.value}" if element.value else element.key
            yield writer.item(key, (f"{writer.family} {writer.daemon}", f"@{container}"), (text, ""), element.counted)


def chain_rules(node: Node, program: str, writer: Writer, name: str) -> Iterator[Item]:
    try:
        text = saved(node, program)
    except CommandError as error:
        if error.returncode == NOT_INSTALLED:
            return
        raise
    for found in counted_rules(text, (PREFIXES[writer.daemon],)):
        key = (found.table, found.chain)
        if not (writer.owners and writer.owners.names(key)):
            key = (found.table, found.rule)
        if writer.is_for(key, name):
            place = f"{program.removesuffix('-save')} {found.table}"
            yield writer.item(key, (place, found.chain), (found.rule, ""), (found.packets, found.bytes))


def listing(items: list[Item], form: str) -> Listing:
    """Only `wide` shows long texts to their end."""
    is_wide = form == "wide"
    columns = (
        Column("OWNER", lambda item: cut(owner_text(item), OWNER, is_wide=is_wide)),
        Column("CHAIN OR SET", lambda item: cut(item["chain"], WHERE, is_wide=is_wide)),
        Column("RULE", lambda item: cut(item["purpose"] or item["rule"], RULE, is_wide=is_wide)),
        Column("PLACE", lambda item: item["place"], wide=True),
        Column("PACKETS", lambda item: item["packets"], right=True, wide=True),
        Column("BYTES", lambda item: item["bytes"], right=True, wide=True),
        Column("TEXT", lambda item: item["rule"] if item["purpose"] else None, wide=True),
    )
    return Listing("RuleList", items, columns, lambda item: f"{item['place']}/{item['chain']}/{item['rule']}")


def owner_text(item: Item) -> str:
    name = (item["owner"] or item["daemon"]).removeprefix("Service ")
    return f"{name} +{item['other_owners']}" if item["other_owners"] else name


def cut(text: str, width: int, *, is_wide: bool) -> str:
    return text if is_wide or len(text) <= width else f"{text[: width - 1]}…"
