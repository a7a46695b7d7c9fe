"""Connections and bytes by called place. Pure.

Elements are places that clients call. They do not change with endpoints, and nothing of ours writes them again while
a place is there: what they counted stays. Who was called is asked of conntrack, behind all that could refuse a packet.

    postrouting, input (nat)      the first packet of each connection to an endpoint: `connections`
    postrouting, input (filter)   every packet of it, in both directions: `traffic`

Conntrack knows a translated connection whoever translated it, rules of nftables or of either iptables.
"""

from collections.abc import Iterator
from typing import NamedTuple

from controlloop.address import host
from controlloop.nft.state import Chain, Container, Hook, Key, Rule, Value, labelled
from proxy.frontends import Frontend, Protocol, Scope
from proxy.nftables.constant import ADDRESS_TYPE, node_port_addresses, simple_set
from proxy.nftables.names import NODE_PORT_ADDRESSES
from proxy.node import Surroundings

BEFORE_SRCNAT, AFTER_SRCNAT = 99, 101


class Kind(NamedTuple):
    """What is counted, by its sets."""

    at_services: str
    at_node_ports: str

    @property
    def chain(self) -> str:
        return f"count-{self.at_services}"

    @property
    def jump(self) -> str:
        return f"ct status dnat jump {self.chain}"


CONNECTIONS = Kind("connections", "node-port-connections")
TRAFFIC = Kind("traffic", "node-port-traffic")


def types(kind: Kind, address_type: str) -> Iterator[tuple[str, str]]:
    """The sets of a kind, with the types of their keys."""
    port = "inet_proto . inet_service"
    yield kind.at_services, f"{address_type} . {port}"
    yield kind.at_node_ports, port


def constant_objects(surroundings: Surroundings) -> Iterator[tuple[Key, Value]]:
    address_type = ADDRESS_TYPE[surroundings.family]
    yield Key("container", NODE_PORT_ADDRESSES), simple_set(address_type)
    yield from node_port_addresses(surroundings)
    for kind in CONNECTIONS, TRAFFIC:
        for name, type_ in types(kind, address_type):
            yield Key("container", name), Container("set", type_, f"type {type_}; counter", counts=True)
        yield Key("chain", kind.chain), Chain(None, tuple(counting(kind, surroundings)))
    yield from hooks()


def hooks() -> Iterator[tuple[Key, Chain]]:
    first = labelled("a connection to an endpoint", CONNECTIONS.jump)
    every = labelled("a packet of one", TRAFFIC.jump)
    # A connection meets one of the two nat hooks; what goes to lo comes in from it, and meets both of the others.
    others = labelled("a packet of one, not seen in postrouting", f'iifname != "lo" {TRAFFIC.jump}')
    for name, type_, hook, priority, rule in (
        ("connections-postrouting", "nat", "postrouting", BEFORE_SRCNAT, first),
        ("connections-input", "nat", "input", BEFORE_SRCNAT, first),
        ("traffic-postrouting", "filter", "postrouting", AFTER_SRCNAT, every),
        ("traffic-input", "filter", "input", AFTER_SRCNAT, others),
    ):
        yield Key("chain", name), Chain(Hook(type_, hook, priority), (rule,))


def counting(kind: Kind, surroundings: Surroundings) -> Iterator[Rule]:
    """The type of `ct original proto-dst` is known to nft 1.0.6 only behind a protocol: hence rules for each."""
    address, port = f"ct original {surroundings.family.nft} daddr", "meta l4proto . ct original proto-dst"
    at_node = "" if surroundings.node_port_addresses is None else f"{address} @{NODE_PORT_ADDRESSES} "
    for protocol in Protocol:
        is_it = f"meta l4proto {protocol.value}"
        yield labelled("to a service", f"{is_it} {address} . {port} @{kind.at_services} return")
        yield labelled("to a node port", f"{is_it} {at_node}{port} @{kind.at_node_ports} return")


def elements(frontend: Frontend) -> Iterator[tuple[Key, Value]]:
    for kind in CONNECTIONS, TRAFFIC:
        container = kind.at_node_ports if frontend.scope is Scope.NODE_PORT else kind.at_services
        yield Key("element", container, place(frontend)), ""


def place(frontend: Frontend) -> str:
    """Where the frontend is called, in the words of its elements."""
    port = f"{frontend.protocol.value} . {frontend.port}"
    if frontend.scope is Scope.NODE_PORT:
        return port
    return f"{host(frontend.family, int(frontend.address))} . {port}"
