"""What our table should hold, from the frontends.

Pure. The number of rules does not depend on the number of services:

    prerouting, output -> services: (address, protocol, port) is looked up in the map `services`
        -> random-tcp-N: for every TCP frontend with N endpoints, one rule that draws a number below N and looks up
           (address, port, number) in the map `tcp-endpoints`; likewise for UDP and SCTP
        -> round-robin-...: one chain and one rule for each such frontend, for its counter must be its own
    forward, output (filter): frontends without endpoints are in the map `no-endpoints`, which refuses
    postrouting: what we translated is masqueraded when an endpoint calls itself (`hairpin`), and when the caller is
        not a pod and called one of our addresses (`cluster-ips`); conntrack knows the address that was called, so no
        packet mark is needed

There is a map of endpoints for each protocol because nft 1.0.6 cannot add a rule that looks into a map it reads back
from the kernel as `typeof ... th dport : ... th dport` ("conflicting protocols specified"); `tcp dport` it can.

A shared round-robin counter would lock in step: two frontends called in the pattern A B B would each see only some of
their endpoints. `random` keeps no state and is shared.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from controlloop.delta import Delta, Ledger
from controlloop.family import Family, IPNetwork
from controlloop.nft.state import Chain, Container, Hook, Key, Rule, Value, labelled
from proxy.frontends import Balance, Frontend, Protocol, ServiceName
from proxy.node import PodDetector, Surroundings

# The table itself owns the constant part in the ledger.
THE_TABLE = None

NAME_LENGTH = 120
ADDRESS_TYPE = {Family.V4: "ipv4_addr", Family.V6: "ipv6_addr"}

DSTNAT, FILTER, SRCNAT = -100, 0, 100


class NftablesPlanner:
    """Keeps the desired state of one family's table; replacing one Service costs what that Service has."""

    def __init__(self, surroundings: Surroundings) -> None:
        """Plan for one family. When nobody can tell who is a pod, only hairpin is masqueraded."""
        self.family = surroundings.family
        self._ledger: Ledger[ServiceName | None, Key, Value] = Ledger()
        self.settle(surroundings, Delta())

    def settle(self, surroundings: Surroundings, delta: Delta[Key, Value]) -> None:
        self._ledger.replace(THE_TABLE, dict(constant_objects(surroundings)), delta)

    @property
    def objects(self) -> Mapping[Key, Value]:
        return self._ledger.objects

    def replace(self, service: ServiceName, frontends: Sequence[Frontend], delta: Delta[Key, Value]) -> None:
        wanted: dict[Key, Value] = {}
        for frontend in frontends:
            if frontend.family is self.family:
                wanted.update(frontend_objects(frontend))
        self._ledger.replace(service, wanted, delta)


def constant_objects(surroundings: Surroundings) -> Iterator[tuple[Key, Value]]:
    family = surroundings.family
    for name, container in containers(family):
        yield Key("container", name), container
    ip = family.nft
    lookup = f"{ip} daddr . meta l4proto . th dport vmap"
    refuse = labelled("new connections to a service without endpoints", f"ct state new {lookup} @no-endpoints")
    to_services = labelled("is it for a service?", "jump services")
    yield chain("refuse", None, labelled("refuse", "reject"))
    yield chain("services", None, labelled("service to its endpoints", f"{lookup} @services"))
    yield chain("prerouting", Hook("nat", "prerouting", DSTNAT), to_services)
    yield chain("output", Hook("nat", "output", DSTNAT), to_services)
    yield chain("filter-forward", Hook("filter", "forward", FILTER), refuse)
    yield chain("filter-output", Hook("filter", "output", FILTER), refuse)
    yield chain("postrouting", Hook("nat", "postrouting", SRCNAT), *masquerading(ip, surroundings.pods))


def containers(family: Family) -> Iterator[tuple[str, Container]]:
    address = ADDRESS_TYPE[family]
    frontend = f"{address} . inet_proto . inet_service"
    yield "services", Container("map", f"{frontend} : verdict", f"type {frontend} : verdict")
    yield "no-endpoints", Container("map", f"{frontend} : verdict", f"type {frontend} : verdict")
    for protocol in Protocol:
        place = f"{family.nft} daddr . {protocol.value} dport"
        # `typeof` with numgen gives the index a type of its own, so that no packet mark has to carry it.
        declaration = f"typeof {place} . numgen random mod 65536 : {place}"
        type_text = f"{address} . inet_service . integer : {address} . inet_service"
        yield endpoint_map(protocol), Container("map", type_text, declaration)
    yield "cluster-ips", Container("set", address, f"type {address}")
    yield "hairpin", Container("set", f"{address} . {address}", f"type {address} . {address}")


def endpoint_map(protocol: Protocol) -> str:
    return f"{protocol.value}-endpoints"


def masquerading(ip: str, pods: PodDetector) -> Iterator[Rule]:
    yield labelled(
        "an endpoint calls itself: it must see another address than its own",
        f"ct status dnat {ip} saddr . {ip} daddr @hairpin masquerade fully-random",
    )
    if isinstance(pods, IPNetwork):
        yield labelled(
            "not a pod: the answer must come back through this node",
            f"ct status dnat {ip} saddr != {pods} ct original {ip} daddr @cluster-ips masquerade fully-random",
        )


def frontend_objects(frontend: Frontend) -> Iterator[tuple[Key, Value]]:
    """All objects that one frontend needs, those it shares with others included."""
    key = f"{frontend.address} . {frontend.protocol.value} . {frontend.port}"
    if not frontend.endpoints:
        yield Key("element", "no-endpoints", key), "goto refuse"
        return
    name, value = balancing_chain(frontend)
    yield name, value
    yield Key("element", "services", key), f"goto {name.name}"
    yield Key("element", "cluster-ips", str(frontend.address)), ""
    container, place = endpoint_map(frontend.protocol), f"{frontend.address} . {frontend.port}"
    for index, endpoint in enumerate(frontend.endpoints):
        yield Key("element", container, f"{place} . {index}"), f"{endpoint.address} . {endpoint.port}"
        if endpoint.is_local:
            yield Key("element", "hairpin", f"{endpoint.address} . {endpoint.address}"), ""


def balancing_chain(frontend: Frontend) -> tuple[Key, Chain]:
    count, protocol = len(frontend.endpoints), frontend.protocol.value
    if frontend.balance is Balance.ROUND_ROBIN:
        name, numgen, how = round_robin_name(frontend), "inc", "in turn"
    else:
        name, numgen, how = f"random-{protocol}-{count}", "random", "at random"
    ip = frontend.family.nft
    drawn = f"{ip} daddr . {protocol} dport . numgen {numgen} mod {count}"
    rule = labelled(f"one of {count} {how}", f"dnat {ip} to {drawn} map @{endpoint_map(frontend.protocol)}")
    return chain(name, None, rule)


def round_robin_name(frontend: Frontend) -> str:
    """Readable, and unique by its digest; the tail is cut to what nft takes."""
    full = f"{frontend.name}/{frontend.address}/{frontend.protocol.value}/{frontend.port}"
    digest = hashlib.sha256(full.encode()).hexdigest()[:10]
    readable = f"{frontend.name.service}/{frontend.protocol.value}/{frontend.port}"
    return f"round-robin-{digest}-{readable}"[:NAME_LENGTH]


def chain(name: str, hook: Hook | None, *rules: Rule) -> tuple[Key, Chain]:
    return Key("chain", name), Chain(hook, tuple(rules))
