"""What `netctl get` knows from daemons beside the kernel: pages, as far as they answer, and who owns what."""

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controlloop.client import UnreachableError
from controlloop.printable import escaped
from netctl.diff.drift import NOBODY, Owner, Owners
from netctl.node import PROXY, Node

Page = Mapping[str, Any]


@dataclass(slots=True)
class Silent:
    """Who did not answer, so that the list is incomplete."""

    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def lines(self) -> list[str]:
        return [
            f"netctl: {daemon} does not answer, so owners are not known ({escaped(reason)})"
            for daemon, reason in self.reasons.items()
        ]


def desired_page(node: Node, daemon: str, silent: Silent) -> Page | None:
    try:
        page: Page = node.page(daemon, "/desired")
    except UnreachableError as error:
        silent.reasons[daemon] = str(error)
        return None
    return page


class Wanted:
    """What a daemon wants of the rules in one place, and for whom."""

    def __init__(self, owners: Owners, objects: Sequence[Any]) -> None:
        self.owners = owners
        self._said: dict[Hashable, Collection[str]] = {tuple(key): said(value) for key, value in objects}

    def owner(self, key: Hashable, chain: Hashable, rule: str) -> Owner:
        """`rule`: its label or its text; empty for an element, whose chain is itself."""
        if rule not in self._said.get(chain, ()):
            return NOBODY
        return self.owners.of(key)


def said(value: Any) -> Collection[str]:
    """The labels of a chain in nftables, the rules of one in iptables."""
    if isinstance(value, dict):
        return {rule["label"] for rule in value.get("rules", ())}
    return set(value) if isinstance(value, list) else ("",)


def wanted_by_place(daemon: str, page: Page | None) -> dict[tuple[str, str], Wanted]:
    """By family of the rules, and the table that is ours alone or the program that lists them."""
    kind = "Service" if daemon == PROXY else "peer"
    found = {}
    for rules in page["rules"] if page else ():
        owners = Owners(daemon, kind, rules["owners"], [key for key, _ in rules["objects"]])
        found[rules["family"], rules["table"] or rules["program"]] = Wanted(owners, rules["objects"])
    return found


def agents(node: Node) -> Iterator[str]:
    return (daemon for daemon in node.daemons if daemon != PROXY)
