"""`netctl leases` and `netctl peers`: the lists that the agent keeps, as a table or a document."""

from typing import Any

import click

from controlloop.client import UnreachableError
from netctl.colour import State
from netctl.exit_codes import FINDING, OK, UNREACHABLE
from netctl.findings.finding import age
from netctl.get.fitting import fitted
from netctl.node import Node
from netctl.output import Column, Item, Listing, render_listing
from netctl.terminal import painter

PATH_STATES = {"reachable": State.OK, "lost": State.FAILED, "mtu": State.DEGRADED, "silent": State.STALE}


def show(node: Node, agent: str, page: str, form: str) -> int:
    """Print one of this agent's lists. Exit code 1: something in it is wrong; 3: the agent does not answer."""
    try:
        items = node.page(agent, f"/{page}")["items"]
    except UnreachableError as error:
        click.echo(f"netctl: {agent} does not answer ({error})", err=True)
        return UNREACHABLE
    listing = peers(items, node.now) if page == "peers" else leases(items)
    if text := render_listing(fitted(listing, form), form, painter()):
        click.echo(text)
    is_wrong = is_wrong_peer if page == "peers" else is_wrong_lease
    return FINDING if any(map(is_wrong, items)) else OK


def peers(items: list[Item], now: float) -> Listing:
    columns = (
        Column("PEER", lambda item: item["key"]),
        Column("PUBLIC IP", lambda item: item["public_ips"][0] if item["public_ips"] else None),
        Column("IN KERNEL", lambda item: "yes" if item["programmed"] else "no", state=programmed_state),
        Column("PATH", path_text, state=path_state),
        Column("RTT MS", lambda item: None if item["rtt_ms"] is None else f"{item['rtt_ms']:.2f}", right=True),
        Column("SINCE", lambda item: since(item["lost_since"] or item["large_lost_since"], now), right=True),
        Column("SUBNETS", lambda item: ",".join(item["subnets"]), wide=True),
        Column("ALL PUBLIC IPS", lambda item: ",".join(item["public_ips"]), wide=True),
        Column("DEVICE", lambda item: item["device"], wide=True),
        Column("MAC", lambda item: item["mac"], wide=True),
        Column("LAST ANSWER", lambda item: since(item["last_answer"], now), right=True, wide=True),
        Column("SKIPPED", lambda item: item["skipped"], wide=True),
    )
    return Listing("PeerList", items, columns, lambda item: f"peer/{item['key']}")


def leases(items: list[Item]) -> Listing:
    columns = (
        Column("LEASE", lambda item: item["key"]),
        Column("PUBLIC IP", lambda item: item["public_ips"][0] if item["public_ips"] else None),
        Column("BACKEND", lambda item: item["backend"]),
        Column("EXPIRES", lambda item: "yes" if item["expires"] else "no"),
        Column("STATE", lease_state, state=lambda item: State.FAILED if item["skipped"] else None),
        Column("SUBNETS", lambda item: ",".join(item["subnets"]), wide=True),
        Column("ALL PUBLIC IPS", lambda item: ",".join(item["public_ips"]), wide=True),
        Column("REVISION", lambda item: item["revision"], right=True, wide=True),
        Column("SKIPPED", lambda item: item["skipped"], wide=True),
    )
    return Listing("LeaseList", items, columns, lambda item: f"lease/{item['key']}")


def path_text(item: Item) -> Any:
    """What probes say; `mtu`: small packets arrive, full ones do not."""
    return "mtu" if item["large_lost_since"] else item["reach"]


def path_state(item: Item) -> State | None:
    return PATH_STATES.get(path_text(item))


def programmed_state(item: Item) -> State:
    return State.OK if item["programmed"] else State.FAILED


def lease_state(item: Item) -> str:
    if item["own"]:
        return "own"
    return "skipped" if item["skipped"] else "peer"


def is_wrong_peer(item: Item) -> bool:
    return not item["programmed"] or bool(item["lost_since"] or item["large_lost_since"])


def is_wrong_lease(item: Item) -> bool:
    return bool(item["skipped"])


def since(moment: float | None, now: float) -> str | None:
    return None if moment is None else age(max(0.0, now - moment))
