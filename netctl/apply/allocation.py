"""Which addresses and ports a Service lacks, and which are free: what the API server does for those that meet one.

Pure. Documents are Services as JSON objects that `refuse_misshapen` has passed.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Literal

import msgspec

from controlloop.errors import OperatorError
from controlloop.family import Family, IPAddress
from proxy.address_text import parse_address
from proxy.objects import RefusedError

Document = dict[str, Any]
Claim = str
"""`clusterips/10.96.0.1` or `nodeports/30000`: what no two Services may have."""

FAMILIES = {"IPv4": Family.V4, "IPv6": Family.V6}
DUAL = ("PreferDualStack", "RequireDualStack")
WITH_NODE_PORTS = ("NodePort", "LoadBalancer")


class Configured(msgspec.Struct, rename="camel"):
    """The key `<prefix>/config`."""

    service_cluster_ip_range: str = msgspec.field(default="10.96.0.0/12", name="serviceClusterIPRange")
    service_node_port_range: str = "30000-32767"


class _Port(msgspec.Struct, rename="camel"):
    port: int
    protocol: str | None = None
    node_port: int | None = None


class _Spec(msgspec.Struct, rename="camel"):
    type: str | None = None
    cluster_ip: str | None = msgspec.field(default=None, name="clusterIP")
    cluster_ips: list[str] | None = msgspec.field(default=None, name="clusterIPs")
    ip_families: list[Literal["IPv4", "IPv6"]] | None = None
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] | None = None
    external_traffic_policy: str | None = None
    allocate_load_balancer_node_ports: bool | None = None
    health_check_node_port: int | None = None
    ports: list[_Port] | None = None


class _Shape(msgspec.Struct):
    """What is read here of a Service."""

    spec: _Spec


def refuse_misshapen(document: Any) -> None:
    """ValueError names the field that is not what it must be."""
    msgspec.convert(document, _Shape)


@dataclass(frozen=True, slots=True)
class Pool:
    """Claims that may be given out: addresses, or ports."""

    kind: str
    first: int
    size: int
    family: Family | None = None
    """None: ports."""

    def claims(self, start: int) -> Iterator[Claim]:
        """All, from one in the middle on and around."""
        for step in range(self.size):
            number = self.first + (start + step) % self.size
            text = str(number) if self.family is None else str(_address(self.family, number))
            yield f"{self.kind}/{text}"

    def __str__(self) -> str:
        claims = [next(self.claims(at)).partition("/")[2] for at in (0, self.size - 1)]
        return f"{self.kind} {' to '.join(claims)}"


@dataclass(frozen=True, slots=True)
class Pools:
    addresses: Mapping[Family, Pool]
    """The family of Services that do not say it stands first."""
    ports: Pool


def parse_pools(addresses: str, ports: str) -> Pools:
    """ValueError says what is no range. Of a network the first and the last address are nobody's."""
    found: dict[Family, Pool] = {}
    for text in addresses.split(","):
        network = ip_network(text.strip())
        if Family.of(network) in found or network.num_addresses < 4:
            raise ValueError(f"{addresses!r} is not one network of each family at most, with addresses to give out")
        found[Family.of(network)] = Pool(
            "clusterips", int(network.network_address) + 1, network.num_addresses - 2, Family.of(network)
        )
    first, _, last = ports.partition("-")
    if not (first.isdigit() and last.isdigit() and 0 < int(first) <= int(last) < 65_536):
        raise ValueError(f"{ports!r} is not FIRST-LAST")
    return Pools(found, Pool("nodeports", int(first), int(last) - int(first) + 1))


def claims_of(document: Document) -> set[Claim]:
    """What a Service has. Whatever is malformed claims nothing."""
    spec = document.get("spec")
    if not isinstance(spec, dict):
        return set()
    ports = [port for port in spec.get("ports") or () if isinstance(port, dict)]
    numbers = [*(port.get("nodePort") for port in ports), spec.get("healthCheckNodePort")]
    addresses = {f"clusterips/{address}" for text in _cluster_ips(spec) if (address := _parsed(text))}
    return addresses | {f"nodeports/{number}" for number in numbers if number}


def kept(document: Document, stored: Document | None) -> Document:
    """The Service with what it was given before, where it does not ask for anything else."""
    if stored is None:
        return document
    result, old = deepcopy(document), stored.get("spec") or {}
    spec = result["spec"]
    if not _cluster_ips(spec) and spec.get("type") != "ExternalName" and "None" not in _cluster_ips(old):
        _set_cluster_ips(spec, _cluster_ips(old)[: 2 if _wants_dual(spec) else 1])
    if _has_node_ports(spec):
        given = {_port_key(port): port.get("nodePort") for port in old.get("ports") or ()}
        for port in spec.get("ports") or ():
            if not port.get("nodePort") and (number := given.get(_port_key(port))):
                port["nodePort"] = number
    if _has_health_check(spec) and not spec.get("healthCheckNodePort") and old.get("healthCheckNodePort"):
        spec["healthCheckNodePort"] = old["healthCheckNodePort"]
    return result


def lacking(document: Document, pools: Pools) -> list[Pool]:
    """Where each claim that is missing is to come from, in the order in which `given` takes them. OperatorError when
    a family is asked for that has no range.
    """
    spec = document["spec"]
    found: list[Pool] = []
    if spec.get("type") != "ExternalName" and "None" not in _cluster_ips(spec):
        found += [_pool(family, pools) for family in _missing_families(spec, pools)]
    if _has_node_ports(spec):
        found += [pools.ports for port in spec.get("ports") or () if not port.get("nodePort")]
    if _has_health_check(spec) and not spec.get("healthCheckNodePort"):
        found.append(pools.ports)
    return found


def given(document: Document, claims: Sequence[Claim]) -> Document:
    """The Service with claims for all that `lacking` named."""
    result = deepcopy(document)
    spec = result["spec"]
    values = [claim.partition("/")[2] for claim in claims]
    addresses = [value for claim, value in zip(claims, values, strict=True) if claim.startswith("clusterips/")]
    numbers = iter(int(value) for claim, value in zip(claims, values, strict=True) if claim.startswith("nodeports/"))
    if addresses:
        _set_cluster_ips(spec, [*_cluster_ips(spec), *addresses])
    if _has_node_ports(spec):
        for port in spec.get("ports") or ():
            port["nodePort"] = port.get("nodePort") or next(numbers)
    if _has_health_check(spec):
        spec["healthCheckNodePort"] = spec.get("healthCheckNodePort") or next(numbers)
    return result


def free(pool: Pool, taken: Container[Claim], start: int) -> Iterator[Claim]:
    return (claim for claim in pool.claims(start % pool.size) if claim not in taken)


def _missing_families(spec: Document, pools: Pools) -> list[Family]:
    there = {Family.of(address) for address in map(_parsed, _cluster_ips(spec)) if address}
    asked = list(dict.fromkeys(FAMILIES[name] for name in spec.get("ipFamilies") or ()))
    wanted = asked or list(there) or [next(iter(pools.addresses))]
    if _wants_dual(spec):
        wanted += [family for family in pools.addresses if family not in wanted]
        if spec.get("ipFamilyPolicy") == "RequireDualStack" and len(wanted) < 2:
            raise OperatorError("ipFamilyPolicy RequireDualStack: the address ranges have one family")
    return [family for family in wanted if family not in there]


def _pool(family: Family, pools: Pools) -> Pool:
    if family not in pools.addresses:
        raise OperatorError(f"ipFamilies IPv{family.value}: no address range of that family")
    return pools.addresses[family]


def _cluster_ips(spec: Document) -> list[Any]:
    several = [text for text in spec.get("clusterIPs") or () if text]
    return several or ([spec["clusterIP"]] if spec.get("clusterIP") else [])


def _parsed(text: object) -> IPAddress | None:
    """As the proxy reads it, odd spellings included; None for what is no address of a Service."""
    try:
        return parse_address("", text) if isinstance(text, str) else None
    except RefusedError:
        return None


def _set_cluster_ips(spec: Document, texts: Sequence[str]) -> None:
    if texts:
        spec["clusterIP"], spec["clusterIPs"] = texts[0], list(texts)


def _wants_dual(spec: Document) -> bool:
    return spec.get("ipFamilyPolicy") in DUAL or len(spec.get("ipFamilies") or ()) > 1


def _has_node_ports(spec: Document) -> bool:
    kind = spec.get("type")
    return kind in WITH_NODE_PORTS and not (
        kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False
    )


def _has_health_check(spec: Document) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _port_key(port: Document) -> tuple[str, int]:
    return port.get("protocol") or "TCP", port["port"]


def _address(family: Family, number: int) -> object:
    return ip_address(number.to_bytes(family.bits // 8))
