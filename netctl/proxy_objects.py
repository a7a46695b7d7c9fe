"""What netproxy has taken in, from its page `/objects`: the values that its own pure modules go on from. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from controlloop.family import Family, IPAddress, IPNetwork
from proxy.annotations import Weights
from proxy.config import ProxyMode
from proxy.endpoints import Candidate, PortNumber, ServiceSlice
from proxy.frontends import Balance, Protocol, ServiceName, ServicePortName
from proxy.node import Interfaces, Node, PodDetector, Surroundings
from proxy.objects import Kind, ObjectName
from proxy.services import Options, ProxiedService, ServicePort
from proxy.tracker import TakenIn

Json = Mapping[str, Any]

PAGE = "/objects"
FAMILIES = {family.value: family for family in Family}


class Taken(NamedTuple):
    mode: ProxyMode
    surroundings: tuple[Surroundings, ...]
    """Of each family."""
    objects: TakenIn


def read_taken(page: Json, only: ServiceName | None = None) -> Taken:
    """With `only`, of this one Service."""
    services = [each for each in page["services"] if is_meant(each["name"], only)]
    slices = ((Kind(kind), ObjectName(namespace, name), each) for kind, namespace, name, each in page["slices"])
    return Taken(
        ProxyMode(page["mode"]),
        tuple(map(surroundings_of, page["surroundings"])),
        TakenIn(
            node_of(page["node"]),
            options_of(page["options"]),
            list(map(service_of, services)),
            [
                ((kind, name), tuple(map(slice_of, several)))
                for kind, name, several in slices
                if any(is_meant(each["service"], only) for each in several)
            ],
        ),
    )


def is_meant(name: Json, only: ServiceName | None) -> bool:
    return only is None or (name["namespace"], name["name"]) == (only.namespace, only.name)


def networks_of(texts: Iterable[str]) -> tuple[IPNetwork, ...]:
    return tuple(map(ip_network, texts))


def node_of(item: Json) -> Node:
    return Node(item["name"], item["zone"], tuple(map(ip_address, item["addresses"])))


def options_of(item: Json) -> Options:
    ranges = item["external_ranges"]
    return Options(
        balance=Balance(item["balance"]),
        balances=frozenset(map(Balance, item["balances"])),
        external_ranges=None if ranges is None else networks_of(ranges),
        drain_s=item["drain_s"],
    )


def surroundings_of(item: Json) -> Surroundings:
    addresses = item["node_port_addresses"]
    return Surroundings(
        **{
            **item,
            "family": FAMILIES[item["family"]],
            "pods": pods_of(item["pods"]),
            "node_port_addresses": None if addresses is None else frozenset(map(ip_address, addresses)),
            "service_cidrs": networks_of(item["service_cidrs"]),
            "health_check_ports": frozenset(item["health_check_ports"]),
        }
    )


def pods_of(item: Json | str | None) -> PodDetector:
    if item is None:
        return None
    return ip_network(item) if isinstance(item, str) else Interfaces(**item)


def name_of(item: Json) -> ServiceName:
    return ServiceName(item["namespace"], item["name"])


def service_of(item: Json) -> ProxiedService:
    name = name_of(item["name"])
    return ProxiedService(
        **{
            **item,
            "name": name,
            "created": datetime.fromisoformat(item["created"]) if item["created"] else None,
            "ports": tuple(port_of(name, port) for port in item["ports"]),
            "families": tuple(FAMILIES[each] for each in item["families"]),
            **{
                field: tuple(map(ip_address, item[field]))
                for field in ("cluster_ips", "external_ips", "load_balancer_ips")
            },
            "source_ranges": networks_of(item["source_ranges"]),
            "balance": Balance(item["balance"]),
            "weights": weights_of(item["weights"]),
        }
    )


def port_of(service: ServiceName, item: Json) -> ServicePort:
    name = ServicePortName(service, item["name"]["port"])
    return ServicePort(name, Protocol(item["protocol"]), item["port"], item["node_port"])


def weights_of(item: Mapping[str, int]) -> Weights:
    """By an address, or by the name of a zone."""
    found: dict[IPAddress | str, int] = {}
    for key, weight in item.items():
        try:
            found[ip_address(key)] = weight
        except ValueError:
            found[key] = weight
    return found


def slice_of(item: Json) -> ServiceSlice:
    ports = (PortNumber(port["name"], Protocol(port["protocol"]), port["number"]) for port in item["ports"])
    candidates = map(candidate_of, item["candidates"])
    return ServiceSlice(name_of(item["service"]), FAMILIES[item["family"]], tuple(ports), tuple(candidates))


def candidate_of(item: Json) -> Candidate:
    return Candidate(**{**item, "address": ip_address(item["address"]), "zone_hints": tuple(item["zone_hints"])})
