"""`netctl get services` and `netctl get endpoints`: what netproxy believes, from its pages `/objects` and `/status`."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

import click

from controlloop.client import UnreachableError
from controlloop.errors import OperatorError
from netctl.colour import State
from netctl.exit_codes import FINDING, OK, UNREACHABLE
from netctl.findings.finding import age
from netctl.get.fitting import fitted
from netctl.node import PROXY, Node
from netctl.output import Column, Item, Listing, render_listing
from netctl.proxy_objects import PAGE, read_taken
from netctl.terminal import painter
from proxy.endpoints import Candidate, places
from proxy.frontends import Balance, Endpoint, Frontend, Scope, ServiceName
from proxy.services import ProxiedService
from proxy.tracker import TakenIn, Tracker

STATES = {"ok": State.OK, "idle": State.STALE, "partly": State.DEGRADED}

Troubles = Mapping[str, tuple[str, str]]
"""State and reason, by Service."""


def show(node: Node, noun: str, name: str, form: str) -> int:
    """`noun` is `services` or `endpoints`; with a `name`, of this Service alone."""
    only = service_name(name) if name else None
    try:
        taken, troubles = read_taken(node.page(PROXY, PAGE), only).objects, troubles_of(node.page(PROXY, "/status"))
    except UnreachableError as error:
        click.echo(f"netctl: netproxy does not answer ({error})", err=True)
        return UNREACHABLE
    if only and not taken.services and name not in troubles:
        raise OperatorError(f"get {noun} {name}: netproxy knows no such Service; `netctl get services` lists them")
    troubles = {service: trouble for service, trouble in troubles.items() if not name or service == name}
    items = list(service_items(taken, troubles) if noun == "services" else endpoint_items(taken))
    listing = services(items, is_wide=form == "wide") if noun == "services" else endpoints(items)
    if text := render_listing(fitted(listing, form), form, painter()):
        click.echo(text)
    return FINDING if noun == "services" and any(item["reason"] for item in items) else OK


def service_name(text: str) -> ServiceName:
    """`web` is in the namespace default, as for kubectl. OperatorError for what is no name."""
    namespace, slash, name = text.rpartition("/")
    if not name or "/" in namespace or (slash and not namespace):
        raise OperatorError(f"{text!r} is no Service: want NAMESPACE/NAME, or NAME in the namespace default")
    return ServiceName(namespace or "default", name)


def troubles_of(status: Item) -> Troubles:
    skipped = {
        item["name"].removeprefix("Service "): ("skipped", item["reason"])
        for item in status["skipped"]
        if item["name"].startswith("Service ")
    }
    return skipped | {item["name"]: ("quarantined", item["reason"]) for item in status["quarantined"]}


# Services


def service_items(taken: TakenIn, troubles: Troubles) -> Iterator[Item]:
    tracker, known = Tracker.going_on(taken), {str(service.name): service for service in taken.services}
    for name in sorted(known.keys() | troubles.keys(), key=lambda name: name.partition("/")):
        if service := known.get(name):
            yield service_item(service, candidates_of(tracker, service), troubles.get(name))
        else:
            state, reason = troubles[name]
            yield {**nothing_of(name), "state": state, "reason": reason}


def candidates_of(tracker: Tracker, service: ProxiedService) -> Sequence[Candidate]:
    """Each address once, whatever ports it serves."""
    found = (candidate for each in tracker.slices_of(service.name) for candidate in each.candidates)
    return list({candidate.address: candidate for candidate in found}.values())


def service_item(service: ProxiedService, candidates: Sequence[Candidate], trouble: tuple[str, str] | None) -> Item:
    ready = sum(each.ready for each in candidates)
    state, reason = trouble or ("ok" if ready else "idle", None)
    return {
        "namespace": service.name.namespace,
        "name": service.name.name,
        "cluster_ips": list(map(str, service.cluster_ips)),
        "external_ips": list(map(str, service.external_ips)),
        "load_balancer_ips": list(map(str, service.load_balancer_ips)),
        "ports": [
            {"name": port.name.port, "protocol": port.protocol.value, "port": port.port, "node_port": port.node_port}
            for port in service.ports
        ],
        "balance": service.balance.value,
        "affinity_s": service.affinity_s,
        "internal_policy": "Local" if service.internal_local else "Cluster",
        "external_policy": "Local" if service.external_local else "Cluster",
        "source_ranges": list(map(str, service.source_ranges)),
        "endpoints": len(candidates),
        "ready": ready,
        "terminating": sum(each.terminating for each in candidates),
        "local": sum(each.is_local for each in candidates),
        # A part of it is left out, and the rest is served.
        "state": "partly" if state == "skipped" else state,
        "reason": reason,
    }


def nothing_of(full_name: str) -> Item:
    """Of a Service that is left out as a whole."""
    namespace, _, name = full_name.partition("/")
    return {
        "namespace": namespace,
        "name": name,
        **{key: [] for key in ("cluster_ips", "external_ips", "load_balancer_ips", "ports", "source_ranges")},
        **dict.fromkeys(("balance", "internal_policy", "external_policy")),
        **dict.fromkeys(("affinity_s", "endpoints", "ready", "terminating", "local"), 0),
    }


def services(items: list[Item], *, is_wide: bool) -> Listing:
    columns = (
        Column("SERVICE", full_name),
        Column("CLUSTER IP", lambda item: ",".join(item["cluster_ips"][: None if is_wide else 1])),
        Column("PORTS", ports_text),
        Column("READY", lambda item: f"{item['ready']}/{item['endpoints']}", right=True),
        Column("STATE", lambda item: item["state"], state=lambda item: STATES.get(item["state"], State.FAILED)),
        Column("OTHER ADDRESSES", lambda item: ",".join(item["external_ips"] + item["load_balancer_ips"]), wide=True),
        Column("BALANCE", lambda item: item["balance"], wide=True),
        Column("AFFINITY", lambda item: age(item["affinity_s"]) if item["affinity_s"] else None, right=True, wide=True),
        Column("POLICY IN/OUT", policies_text, wide=True),
        Column("LOCAL", lambda item: item["local"], right=True, wide=True),
        Column("TERMINATING", lambda item: item["terminating"], right=True, wide=True),
        Column("REASON", lambda item: item["reason"], wide=True),
    )
    return Listing("ServiceList", items, columns, lambda item: f"service/{full_name(item)}")


def full_name(item: Item) -> str:
    return f"{item['namespace']}/{item['name']}"


def ports_text(item: Item) -> str:
    return ",".join(
        f"{port['port']}{':' + str(port['node_port']) if port['node_port'] else ''}/{port['protocol']}"
        for port in item["ports"]
    )


def policies_text(item: Item) -> str | None:
    return f"{item['internal_policy']}/{item['external_policy']}" if item["internal_policy"] else None


# Endpoints


def endpoint_items(taken: TakenIn) -> Iterator[Item]:
    tracker = Tracker.going_on(taken)
    for service in sorted(taken.services, key=lambda each: each.name):
        slices = tracker.slices_of(service.name)
        at_cluster_ip = {
            (each.name.port, each.protocol, each.family): each
            for each in tracker.frontends(service.name)
            if each.scope is Scope.CLUSTER_IP
        }
        for port in service.ports:
            for family in service.families:
                frontend = at_cluster_ip.get((port.name.port, port.protocol, family))
                shares = shares_of(frontend) if frontend else {}
                for (_, number), candidate in sorted(
                    places(slices, port.name.port, port.protocol, family).items(), key=lambda each: each[0]
                ):
                    place = {"port_name": port.name.port, "protocol": port.protocol.value, "port": number}
                    share = shares.get((candidate.address, number), Fraction(0))
                    yield {**name_item(service.name), **place, **candidate_item(candidate), "share": float(share)}


def name_item(name: ServiceName) -> Item:
    return {"namespace": name.namespace, "name": name.name}


def candidate_item(candidate: Candidate) -> Item:
    return {
        "address": str(candidate.address),
        "local": candidate.is_local,
        "zone": candidate.zone or None,
        "ready": candidate.ready,
        "serving": candidate.serving,
        "terminating": candidate.terminating,
    }


def shares_of(frontend: Frontend) -> dict[tuple[object, int], Fraction]:
    """Of new connections to the cluster IP. By hash of the caller the shares are alike only over many callers."""
    weights = {each: weight_of(frontend, each) for each in frontend.endpoints}
    total = sum(weights.values())
    return {(each.address, each.port): Fraction(weight, total) for each, weight in weights.items() if total}


def weight_of(frontend: Frontend, endpoint: Endpoint) -> int:
    return endpoint.weight if frontend.balance is Balance.WEIGHTED else 1


def endpoints(items: list[Item]) -> Listing:
    columns = (
        Column("SERVICE", port_text),
        Column("ENDPOINT", endpoint_text),
        Column("SHARE", lambda item: f"{item['share']:.1%}", right=True),
        Column("STATE", endpoint_state, state=endpoint_colour),
        Column("PLACE", lambda item: "here" if item["local"] else item["zone"]),
        Column("PROTOCOL", lambda item: item["protocol"], wide=True),
        Column("ZONE", lambda item: item["zone"], wide=True),
    )
    return Listing("EndpointList", items, columns, lambda item: f"endpoint/{port_text(item)}/{endpoint_text(item)}")


def port_text(item: Item) -> str:
    return full_name(item) + (f":{item['port_name']}" if item["port_name"] else "")


def endpoint_text(item: Item) -> str:
    return f"[{item['address']}]:{item['port']}" if ":" in item["address"] else f"{item['address']}:{item['port']}"


def endpoint_state(item: Item) -> str:
    if item["terminating"]:
        return "terminating"
    return "ready" if item["ready"] else "not ready"


def endpoint_colour(item: Item) -> State:
    if item["terminating"]:
        return State.STALE
    return State.OK if item["ready"] else State.DEGRADED
