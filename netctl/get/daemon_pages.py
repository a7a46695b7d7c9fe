"""What `netctl get` knows from daemons beside the kernel: pages, as far as they answer, and who owns what."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from controlloop.client import UnreachableError
from controlloop.printable import escaped
from netctl.diff.drift import Owners
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


def owners_by_place(daemon: str, page: Page | None) -> dict[tuple[str, str], Owners]:
    """By program and family of the rules."""
    kind = "Service" if daemon == PROXY else "peer"
    return {
        (rules["program"], rules["family"]): Owners(daemon, kind, rules["owners"], [key for key, _ in rules["objects"]])
        for rules in (page["rules"] if page else ())
    }


def agents(node: Node) -> Iterator[str]:
    return (daemon for daemon in node.daemons if daemon != PROXY)
