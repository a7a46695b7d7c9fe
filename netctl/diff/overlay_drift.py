"""Compares an agent's devices, addresses, routes, neighbors and FDB entries with the kernel's."""

from collections.abc import Iterator, Mapping
from typing import Any

from netagent.state import Object, WireguardLink
from netagent.wanted import name_of, text_of
from netctl.actual.overlay import read_links, read_routes, read_standing, read_wireguard
from netctl.diff.drift import Difference, Owner, texts_that_differ
from netctl.node import Node


def differences(node: Node, daemon: str, page: Mapping[str, Any]) -> list[Difference]:
    wanted = {(kind, name): (owner, text) for owner, kind, name, text in page["overlay"]}
    actual = {(one.key.kind, name_of(one)): text_of(one) for one in relevant(node, page, wanted.keys())}
    return texts_that_differ(
        f"overlay of {daemon}",
        {f"{kind} {name}": (owner_of(daemon, owner), text) for (kind, name), (owner, text) in wanted.items()},
        {f"{kind} {name}": text for (kind, name), text in actual.items()},
    )


def owner_of(daemon: str, name: str) -> Owner:
    return Owner(f"peer {name}") if name else Owner(daemon)


def relevant(node: Node, page: Mapping[str, Any], wanted: Any) -> Iterator[Object]:
    """What is ours, or stands where only ours should be, or in the place of ours."""
    links = [link for link in read_links(node) if link.alias == page["alias"] or ("link", link.name) in wanted]
    devices = {link.name for link in links}
    yield from links
    yield from read_standing(node, devices)
    if encrypted := {link.name for link in links if isinstance(link, WireguardLink)}:
        yield from read_wireguard(node, encrypted)
    for route in read_routes(node):
        is_in_place = ("route", name_of(route)) in wanted
        if is_in_place or route.protocol == page["protocol"]:
            yield route
