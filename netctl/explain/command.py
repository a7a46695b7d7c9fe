"""`netctl explain`: what becomes of a packet on this node, and why, without sending it."""

import os
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import PurePath
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from controlloop.client import UnreachableError
from controlloop.command import CommandError
from controlloop.errors import OperatorError
from controlloop.family import Family, IPAddress
from netctl.exit_codes import FINDING, OK, REFUSED, UNREACHABLE
from netctl.explain.explanation import WIDTH, Explanation
from netctl.explain.flow_words import THIS_NODE, Target, read_target
from netctl.explain.kernel import KernelSight
from netctl.explain.rules import RuleReader
from netctl.explain.walk import Notes, Packet, Place
from netctl.explain.walk_hooks import Journey, Outcome
from netctl.explain.walk_overlay import hop
from netctl.node import PROXY, Node
from netctl.output import render_document
from netctl.presence import NoDaemonError, require_daemon
from netctl.terminal import painter
from proxy.frontends import ANY_NODE_ADDRESS

if TYPE_CHECKING:
    from netctl.explain.recorded import RecordedRules, RecordedSight

Eyes: TypeAlias = "KernelSight | RecordedSight"
UNSPECIFIED: Mapping[Family, IPAddress] = {Family.V4: IPv4Address(0), Family.V6: IPv6Address(0)}
NOBODY = frozenset({*UNSPECIFIED.values(), IPv4Address("255.255.255.255")})
ENDLESS = 10_000
"""Columns, for a script that looks for words."""
ALLOCATIONS = ("/run/cni/networks/*/*", "/var/lib/cni/networks/*/*")
"""Where the plugin host-local notes which container has an address: a file for each, with the container's id."""


def explain(ends: Sequence[str], form: str, node: Node, *, verify: bool = False, anywhere: bool = False) -> int:
    """Print what becomes of the packet. Exit code 1: it does not arrive.

    `ends`: source and destination, or the latter alone; `anywhere`: send also where no daemon answers.
    """
    try:
        if verify:
            refuse_to_send(node, anywhere=anywhere)
        source, destination = ("-", *ends)[-2:]
        explanation = explained(source, read_target(destination), node)
        if verify:
            from netctl.explain.verify import verified  # noqa: PLC0415

            explanation.verified = verified(explanation)
    except NoDaemonError as error:
        return refuse(f"explain --verify: {error}")
    except PermissionError as error:
        return refuse(f"explain: rules cannot be read ({error.strerror}); run it as root")
    except CommandError as error:
        advice = "run it as root" if node.is_live else "so it was when the bundle was taken"
        return refuse(f"explain: {error}; {advice}")
    except OSError as error:
        return refuse(f"explain: the kernel does not answer: {error.strerror or error}")
    except UnreachableError as error:
        click.echo(f"netctl: explain: netproxy does not answer ({error}); give ADDRESS:PORT", err=True)
        return UNREACHABLE
    click.echo(shown(explanation, form))
    agrees = explanation.verified is None or explanation.verified["agrees"]
    return OK if explanation.arrives and agrees else FINDING


def refuse_to_send(node: Node, *, anywhere: bool) -> None:
    """Where a packet would go nowhere, or where nobody means it to."""
    if not node.is_live:
        raise OperatorError("explain --verify: a bundle takes no packets; leave out --from or --verify")
    if not anywhere:
        require_daemon(node)


def refuse(message: str) -> int:
    click.echo(f"netctl: {' '.join(message.split())}", err=True)
    return REFUSED


def shown(explanation: Explanation, form: str) -> str:
    if form in ("json", "yaml"):
        return render_document(explanation.document(), form)
    if form == "name":
        return f"service/{explanation.service}" if explanation.service else explanation.verdict
    return explanation.render(ENDLESS if form == "wide" else min(WIDTH, get_terminal_size().columns), painter())


def explained(source: str, target: Target, node: Node) -> Explanation:
    """UnreachableError when only netproxy could say what the target is."""
    caller = None if source in THIS_NODE else address_of(source, node)
    place, protocol, frontend = resolved(target, caller, node)
    family = Family.of(place.address)
    if caller is not None and Family.of(caller) is not family:
        raise OperatorError(f"explain: {caller} and {place.address} are of two families; want both of one")
    refuse_unless_of_hosts(caller, place.address)
    sight, rules = eyes(family, node)
    with closing(sight):
        packet = first_packet(sight, caller, place, protocol)
        outcomes, notes = travelled(packet, sight, rules)
        live, found = (True, frontend) if frontend else owner(sight, packet, node)
        peers = listed_peers(node)
        hops = {each: hop(each.packet.to.address, each.route, sight, peers) for each in outcomes}
    return Explanation(packet, outcomes, notes, hops, found, live)


def travelled(packet: Packet, sight: Eyes, rules: "RuleReader | RecordedRules") -> tuple[list[Outcome], Notes]:
    notes = Notes()
    return Journey(list(rules.rulesets()), sight, notes).travel(packet), notes


def refuse_unless_of_hosts(caller: IPAddress | None, to: IPAddress) -> None:
    """Of connections, whose ends are one host each."""
    for end, address in (("source", caller), ("destination", to)):
        if address is not None and address.is_multicast:
            raise OperatorError(f"explain: {end} {address} is of a multicast group; want the address of one host")
    if caller in NOBODY:
        raise OperatorError(f"explain: no connection has the source {caller}; want an address, or - for this node")


def eyes(family: Family, node: Node) -> "tuple[Eyes, RuleReader | RecordedRules]":
    """What sees routes and sets, and what reads rules: the kernel's, or those of a record."""
    if node.is_live:
        live = KernelSight(family)
        return live, RuleReader(family, live)
    from netctl.explain.recorded import RecordedRules, RecordedSight  # noqa: PLC0415 - seldom

    recorded = RecordedSight(family, node)
    return recorded, RecordedRules(family, recorded, node)


def first_packet(sight: Eyes, caller: IPAddress | None, to: Place, protocol: str) -> Packet:
    if caller is None:
        source = sight.route(to.address).source or UNSPECIFIED[Family.of(to.address)]
        return Packet(source, to, protocol)
    if sight.is_local(caller):
        return Packet(caller, to, protocol)
    back = sight.route(caller)
    if not back.device:
        raise OperatorError(f"explain: no route leads to {caller}, so nobody can tell where its packets come in")
    return Packet(caller, to, protocol, came_in=back.device)


# -- names ------------------------------------------------------------------------------------------------------------


def address_of(name: str, node: Node) -> IPAddress:
    """An address, or the name of a container or of a lab's client."""
    try:
        return ip_address(name)
    except ValueError:
        pass
    if name == "client" and "NODENET_HOST" in os.environ:
        from lab.topology import CLIENT_ADDRESS  # noqa: PLC0415

        return CLIENT_ADDRESS
    for path, text in (file for pattern in ALLOCATIONS for file in node.texts(pattern).items()):
        container = text.partition("\n")[0].strip()
        if name and container.startswith(name):
            with suppress(ValueError):
                return ip_address(PurePath(path).name)
    raise OperatorError(
        f"explain: {name!r} is no address, and no pod on this node is called so; want an address, or - for this node"
    )


def resolved(target: Target, caller: IPAddress | None, node: Node) -> tuple[Place, str, Mapping[str, Any] | None]:
    """Where to, over what, and netproxy's description where that was asked for it."""
    if target.address is not None:
        return Place(target.address, int(target.port)), target.protocol or "tcp", None
    listed = frontends(node, f"/frontends-of/{target.service}")
    fitting = [one for one in listed if fits(one, target)]
    family = Family.of(caller) if caller else None
    for one in sorted(fitting, key=lambda each: each["scope"] != "ClusterIP"):
        address = ip_address(one["address"])
        if one["scope"] != "NodePort" and family in (None, Family.of(address)):
            return Place(address, one["port"]), one["protocol"], one
    there = ", ".join(sorted({f"{one['port_name'] or one['port']}/{one['protocol']}" for one in listed}))
    what = f"it has {there}" if listed else "netproxy serves no such Service"
    wanted = f"{target.service}{f':{target.port}' if target.port else ''}"
    raise OperatorError(f"explain: {wanted} has no address to call: {what}")


def fits(frontend: Mapping[str, Any], target: Target) -> bool:
    by_port = not target.port or target.port in (frontend["port_name"], str(frontend["port"]))
    return by_port and target.protocol in ("", frontend["protocol"])


# -- the daemons ------------------------------------------------------------------------------------------------------


def frontends(node: Node, page: str) -> Sequence[Mapping[str, Any]]:
    items: Sequence[Mapping[str, Any]] = node.page(PROXY, page)["items"]
    return items


def owner(sight: Eyes, packet: Packet, node: Node) -> tuple[bool, Mapping[str, Any] | None]:
    """Whether netproxy answers, and the frontend that was called."""
    addresses = [packet.to.address]
    if sight.is_local(packet.to.address):
        addresses.append(ANY_NODE_ADDRESS[packet.family])
    try:
        for address in addresses:
            if found := frontends(node, f"/frontends/{address}/{packet.protocol}/{packet.to.port}"):
                return True, found[0]
    except UnreachableError:
        return False, None
    return True, None


def listed_peers(node: Node) -> list[Mapping[str, Any]]:
    """Of all agents that answer."""
    found: list[Mapping[str, Any]] = []
    for agent in (daemon for daemon in node.daemons if daemon != PROXY):
        try:
            found += node.page(agent, "/peers")["items"]
        except UnreachableError:
            continue
    return found
