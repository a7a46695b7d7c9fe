"""The part of our table that does not depend on Services. Pure.

    prerouting, output            services: (address, protocol, port) is looked up, then node ports
    before those                  sources: who may not connect is dropped; only while a Service says who may
    input, forward, output        new connections that nobody serves are refused
    postrouting                   what was marked is masqueraded, and an endpoint that calls itself

Other packets than the first of a connection meet one comparison in each hook. The first one of a connection that is for
no Service is compared with the networks of Services, which are few: the large maps would each cost it a cache miss.
"""

from collections.abc import Iterator
from functools import lru_cache
from ipaddress import collapse_addresses
from typing import Any

from controlloop.address import host, network
from controlloop.family import Family, IPNetwork
from controlloop.nft.state import Chain, Container, Hook, Key, Rule, Value, labelled
from proxy.frontends import Protocol
from proxy.nftables import names
from proxy.node import Surroundings

ADDRESS_TYPE = {Family.V4: "ipv4_addr", Family.V6: "ipv6_addr"}
LOOPBACK = {Family.V4: "127.0.0.0/8", Family.V6: "::1"}
HOST_BITS = {Family.V4: 8, Family.V6: 16}
"""Of a network of Services: small enough to have no pods in it."""

BEFORE_DSTNAT, DSTNAT, FILTER, SRCNAT = -110, -100, 0, 100


def containers(family: Family) -> Iterator[tuple[str, Container]]:
    address = ADDRESS_TYPE[family]
    port = "inet_proto . inet_service"
    for name in names.SERVICES, names.NO_ENDPOINTS, names.SOURCES:
        yield name, simple_map(f"{address} . {port}", "verdict")
    for name in names.NODE_PORTS, names.NO_ENDPOINT_NODE_PORTS:
        yield name, simple_map(port, "verdict")
    for protocol in Protocol:
        for is_node_port in False, True:
            yield endpoints_map(family, protocol, is_node_port=is_node_port)
    for name in names.SERVICE_NETWORKS, names.CLUSTER_IPS, names.NODE_PORT_ADDRESSES:
        yield name, simple_set(address)
    yield names.HAIRPIN, simple_set(f"{address} . {address}")


def endpoints_map(family: Family, protocol: Protocol, *, is_node_port: bool) -> tuple[str, Container]:
    """What is in the slots of frontends.

    `typeof` with numgen gives the slot a type of its own, so that no packet mark has to carry it. There is a map for
    each protocol because nft 1.0.6 cannot add a rule that looks into a map it reads back from the kernel as
    `typeof ... th dport : ... th dport` ("conflicting protocols specified"); `tcp dport` it can.
    """
    place, place_type = f"{family.nft} daddr . {protocol.value} dport", f"{ADDRESS_TYPE[family]} . inet_service"
    key, key_type = (f"{protocol.value} dport", "inet_service") if is_node_port else (place, place_type)
    return names.endpoints_map(protocol, is_node_port=is_node_port), Container(
        "map", f"{key_type} . integer : {place_type}", f"typeof {key} . numgen random mod 65536 : {place}"
    )


def simple_map(key: str, value: str) -> Container:
    return Container("map", f"{key} : {value}", f"type {key} : {value}")


def simple_set(key: str) -> Container:
    return Container("set", key, f"type {key}")


def constant_objects(surroundings: Surroundings) -> Iterator[tuple[Key, Value]]:
    family = surroundings.family
    for name, container in containers(family):
        yield Key("container", name), container
    yield from node_port_addresses(surroundings)
    yield from translating(surroundings)
    yield from refusing(surroundings)
    yield from masquerading(surroundings)


def node_port_addresses(surroundings: Surroundings) -> Iterator[tuple[Key, Value]]:
    for address in surroundings.node_port_addresses or ():
        # Another node could reach what listens on loopback alone, if that were served.
        if not address.is_loopback:
            yield Key("element", names.NODE_PORT_ADDRESSES, host(surroundings.family, int(address))), ""


Chains = Iterator[tuple[Key, Chain]]


def chain(name: str, hook: Hook | None, *rules: Rule) -> tuple[Key, Chain]:
    return Key("chain", name), Chain(hook, rules)


def translating(surroundings: Surroundings) -> Chains:
    to_services = labelled("is it for a service?", "jump services")
    yield chain("prerouting", Hook("nat", "prerouting", DSTNAT), to_services)
    yield chain("output", Hook("nat", "output", DSTNAT), to_services)
    perhaps = may_be_service(surroundings.family)
    at_service = labelled("service to its endpoints", f"{perhaps} {service(surroundings.family)} @{names.SERVICES}")
    at_node_port = labelled("node port to its endpoints", f"{node_port(surroundings)} @{names.NODE_PORTS}")
    yield chain("services", None, at_service, at_node_port)


def restricting(family: Family) -> Chains:
    """For Services that not everybody may call. Every packet meets a hook, so there is none without such a Service."""
    may_connect = labelled("who may connect?", f"ct state new {service(family)} @{names.SOURCES}")
    yield chain("early-prerouting", Hook("filter", "prerouting", BEFORE_DSTNAT), may_connect)
    yield chain("early-output", Hook("filter", "output", BEFORE_DSTNAT), may_connect)


def refusing(surroundings: Surroundings) -> Chains:
    """Only what was not translated can match here: the others have the address of an endpoint by now."""
    here = labelled("does nobody serve it here?", "ct state new jump refuse-here")
    may_be = may_be_service(surroundings.family)
    there = labelled("does nobody serve it?", f"ct state new {may_be} jump refuse-services"), *unallocated(surroundings)
    yield chain("filter-input", Hook("filter", "input", FILTER), here)
    yield chain("filter-forward", Hook("filter", "forward", FILTER), *there)
    yield chain("filter-output", Hook("filter", "output", FILTER), *there)
    at_service = labelled("service without endpoints", f"{service(surroundings.family)} @{names.NO_ENDPOINTS}")
    node_ports = f"{node_port(surroundings)} @{names.NO_ENDPOINT_NODE_PORTS}"
    yield chain("refuse-here", None, labelled("node port without endpoints", node_ports), at_service)
    undefined = labelled(
        "a port or protocol that the service does not have",
        f"{surroundings.family.nft} daddr @{names.CLUSTER_IPS} goto refuse",
    )
    yield chain("refuse-services", None, at_service, undefined)
    # A host sends one ICMP message a second, unless told otherwise; TCP can do without.
    reset = labelled("refuse", "meta l4proto tcp reject with tcp reset")
    yield chain("refuse", None, reset, labelled("refuse", "reject"))


def unallocated(surroundings: Surroundings) -> Iterator[Rule]:
    """Packets to addresses for Services that none has would leave the node, and perhaps come back for ever."""
    if networks := networks_text(surroundings.family, surroundings.service_cidrs):
        unclaimed = f"ct state new {surroundings.family.nft} daddr {networks} drop"
        yield labelled("an address that no service has", unclaimed)


def masquerading(surroundings: Surroundings) -> Chains:
    ip, mark = surroundings.family.nft, f"{surroundings.mark:#x}"
    marked = labelled(
        "marked: the answer must come back through this node",
        f"meta mark and {mark} != 0 meta mark set meta mark xor {mark} masquerade fully-random",
    )
    hairpin = labelled(
        "an endpoint calls itself: it must see another address than its own",
        f"ct status dnat {ip} saddr . {ip} daddr @{names.HAIRPIN} masquerade fully-random",
    )
    yield chain("postrouting", Hook("nat", "postrouting", SRCNAT), marked, hairpin)


def may_be_service(family: Family) -> str:
    mask = host(family, (1 << family.bits) - (1 << HOST_BITS[family]))
    return f"{family.nft} daddr and {mask} @{names.SERVICE_NETWORKS}"


@lru_cache(maxsize=1024)
def service_network(family: Family, number: int) -> Key:
    """The element for addresses that begin like this; `number` is one without its last HOST_BITS."""
    return Key("element", names.SERVICE_NETWORKS, host(family, number << HOST_BITS[family]))


def service(family: Family) -> str:
    return f"{family.nft} daddr . meta l4proto . th dport vmap"


def node_port(surroundings: Surroundings) -> str:
    family = surroundings.family
    if surroundings.node_port_addresses is None:
        here = f"fib daddr type local {family.nft} daddr != {LOOPBACK[family]}"
    else:
        here = f"{family.nft} daddr @{names.NODE_PORT_ADDRESSES}"
    return f"{here} meta l4proto . th dport vmap"


@lru_cache
def networks_text(family: Family, networks: tuple[IPNetwork, ...]) -> str:
    """Those of the family as one operand; nft refuses a set in which one network holds another. Empty for none."""
    # One type for both families: `collapse_addresses` wants to know which of the two.
    mine: list[Any] = [one for one in networks if Family.of(one) is family]
    texts = [network(family, int(one.network_address), one.prefixlen) for one in collapse_addresses(mine)]
    return f"{{ {', '.join(texts)} }}" if texts else ""
