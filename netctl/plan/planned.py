"""What manifests would change: through the proxy's own tracker and planners, from what it has taken in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controlloop.delta import Delta
from controlloop.nft.state import Chain
from netctl.output import API_VERSION
from netctl.plan.changes import ServiceChange, service_change
from netctl.plan.manifests import Foreseen, foreseen
from netctl.proxy_objects import Taken
from proxy.config import ProxyMode
from proxy.frontends import ServiceName
from proxy.iptables.desired import IptablesPlanner
from proxy.nftables.desired import NftablesPlanner
from proxy.node import Surroundings
from proxy.objects import Kind
from proxy.rules import BALANCES
from proxy.sources import Batch, Update
from proxy.sources.manifests import ObjectKey
from proxy.tracker import Tracker


@dataclass(slots=True)
class Plan:
    mode: ProxyMode
    services: list[ServiceChange]
    refusals: dict[str, str] = field(default_factory=dict)
    """What would be left out, by the object that says it."""
    notes: dict[str, str] = field(default_factory=dict)
    """What cannot be foreseen, by object."""
    writes: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def document(self) -> dict[str, Any]:
        return {
            "apiVersion": API_VERSION,
            "kind": "Plan",
            "mode": self.mode.value,
            "items": [each.item for each in self.services],
            "refusals": told(self.refusals),
            "notes": told(self.notes),
            "writes": self.writes,
        }


def told(reasons: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"object": name, "reason": reason} for name, reason in reasons.items()]


def plan(taken: Taken, objects: Mapping[ObjectKey, bytes], mode: ProxyMode | None, *, deletes: bool) -> Plan:
    """`mode`: another one than the proxy is in. With `deletes`, as if these objects were deleted."""
    chosen = mode or taken.mode
    read = taken.objects
    if chosen is not taken.mode:
        read = read._replace(options=replace(read.options, balances=BALANCES[chosen]))
    before, after = Tracker.going_on(read), Tracker.going_on(read)
    known = {each.name: each for each in read.services}
    expected = list(foreseen_of(objects, known, deletes=deletes))
    updates = [each.update for each in expected]
    skipped_before = before.skipped
    changed = after.apply(Batch(tuple(updates), listed=False))
    named = {ServiceName(each.name.namespace, each.name.name) for each in updates if each.kind is Kind.SERVICE}
    growing = {
        ServiceName(each.update.name.namespace, each.update.name.name) for each in expected if each.is_given_more
    }
    services = [service_change(each, before, after, is_given_more=each in growing) for each in sorted(changed | named)]
    notes = {f"{each.update.kind.value} {each.update.name}": each.note for each in expected if each.note}
    refusals = {name: each.reason for name, each in after.skipped.items() if skipped_before.get(name) != each}
    writes = [written(chosen, each, (before, after), changed) for each in taken.surroundings]
    return Plan(chosen, services, refusals, notes, writes)


def foreseen_of(
    objects: Mapping[ObjectKey, bytes], known: Mapping[ServiceName, Any], *, deletes: bool
) -> Iterator[Foreseen]:
    for key, body in objects.items():
        yield Foreseen(Update(*key, None)) if deletes else foreseen(key, body, known)


def written(
    mode: ProxyMode, surroundings: Surroundings, trackers: tuple[Tracker, Tracker], changed: set[ServiceName]
) -> Mapping[str, Any]:
    """How much goes into the kernel, and out of it: others may need the same chains, so all of them are planned."""
    before, after = trackers
    around = settled(surroundings, before)
    planner = NftablesPlanner(around) if mode is ProxyMode.NFTABLES else IptablesPlanner(around)
    for service in before.services():
        planner.replace(service, before.frontends(service), Delta())
    delta: Delta[Any, Any] = Delta()
    for service in changed:
        planner.replace(service, after.frontends(service), delta)
    planner.settle(settled(surroundings, after), delta)
    chains = [value.rules for value in delta.put.values() if isinstance(value, Chain)]
    chains += [value for value in delta.put.values() if isinstance(value, tuple)]
    return {
        "family": surroundings.family.nft,
        "rules": sum(map(len, chains)),
        "chains": len(chains),
        "elements": sum(isinstance(value, str) for value in delta.put.values()),
        "removed": len(delta.drop.keys() - delta.put.keys()),
    }


def settled(surroundings: Surroundings, tracker: Tracker) -> Surroundings:
    ports = frozenset(check.port for check in tracker.health_checks().values())
    return replace(surroundings, health_check_ports=ports)
