"""What changed in Services and rules, in words for `netctl events`. Pure but for the clock of the history.

A Service is told of when its frontends are in the kernel, with what made them differ: the Service, its endpoints
(`slice`) or this node.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields
from typing import Any

from controlloop.history import History
from proxy.config import Settings
from proxy.frontends import ANY_NODE_ADDRESS, Endpoint, Frontend, ServiceName
from proxy.objects import Kind
from proxy.sources import Update

Frontends = tuple[Frontend, ...]


class ChangeHistory:
    def __init__(self, history: History) -> None:
        self._history = history
        self._triggers: dict[ServiceName, str] = {}
        self._has_started = False

    def heard(self, updates: Iterable[Update], changed: Collection[ServiceName]) -> None:
        """A batch made the frontends of these Services different."""
        if not self._has_started:
            return
        written = {ServiceName(one.name.namespace, one.name.name) for one in updates if one.kind is Kind.SERVICE}
        for service in changed:
            self._triggers[service] = "service" if service in written else "slice"

    def programmed(self, finished: Mapping[ServiceName, Frontends], before: Callable[[ServiceName], Frontends]) -> None:
        """These frontends are in the kernel, in the place of those `before`."""
        triggers, self._triggers = self._triggers, {}
        if not self._has_started:
            self._has_started = True
            self._history.note("netproxy", "started", new=totals(finished.values()), trigger="startup")
            return
        by_trigger: dict[str, dict[str, tuple[Frontends, Frontends]]] = {}
        for service, after in finished.items():
            changes = by_trigger.setdefault(triggers.get(service, "node"), {})
            changes[str(service)] = before(service), after
        for trigger, changes in by_trigger.items():
            self._history.noted("service", changes, trigger, facts)

    def configured(self, before: Settings, after: Settings) -> None:
        old, new = dict(settings_facts(before)), dict(settings_facts(after))
        differing = [name for name, value in old.items() if new[name] != value]
        if differing:
            lost, gained = ([f"{name} {values[name]}" for name in differing] for values in (old, new))
            self._history.note("configuration", "changed", old=lost, new=gained, trigger="config")


def totals(services: Iterable[Frontends]) -> tuple[str, ...]:
    counts = Counter[str]()
    for frontends in services:
        counts["services"] += bool(frontends)
        counts["frontends"] += len(frontends)
        counts["endpoints"] += sum(len(frontend.endpoints) for frontend in frontends)
    return tuple(f"{counts[what]} {what}" for what in ("services", "frontends", "endpoints"))


def facts(before: Frontends, after: Frontends) -> tuple[list[str], list[str]]:
    """What a person would want to know of a Service. One that changed in something else differs in numbers."""
    old, new = list(told_of(before)), list(told_of(after))
    if set(old) == set(new) and before != after:
        old, new = [*old, *numbers(before)], [*new, *numbers(after)]
    return old, new


def told_of(frontends: Frontends) -> dict[str, None]:
    """Without repetition, in order: frontends have endpoints in common."""
    found: dict[str, None] = {}
    for frontend in frontends:
        found[f"{place(frontend)} {words(frontend)}".strip()] = None
    for frontend in frontends:
        serving = {*frontend.endpoints, *(frontend.inside or ())}
        found |= dict.fromkeys(map(endpoint_text, sorted(serving, key=str)))
        found |= dict.fromkeys(f"{one} draining" for one in frontend.lingering if one not in serving)
    return found


def endpoint_text(endpoint: Endpoint) -> str:
    return f"{endpoint}" if endpoint.weight == 1 else f"{endpoint} weight {endpoint.weight}"


def place(frontend: Frontend) -> str:
    if frontend.address == ANY_NODE_ADDRESS[frontend.family]:
        return f"node port {frontend.port}/{frontend.protocol.value} IPv{frontend.family.value}"
    host = f"[{frontend.address}]" if frontend.address.version == 6 else f"{frontend.address}"
    return f"{host}:{frontend.port}/{frontend.protocol.value}"


def words(frontend: Frontend) -> str:
    said = [frontend.balance.value]
    said += [f"affinity {frontend.affinity_s}s"] if frontend.affinity_s else []
    said += [f"from {' '.join(map(str, frontend.sources))}"] if frontend.sources else []
    said += ["policy Local"] if frontend.inside is not None else []
    return ", ".join(said)


def numbers(frontends: Frontends) -> list[str]:
    return [
        f"{place(one)}: {len(one.endpoints)} endpoints, {len(one.inside or ())} inside, {len(one.lingering)} draining"
        for one in frontends
    ]


def settings_facts(settings: Settings) -> Iterable[tuple[str, Any]]:
    return ((field.name, getattr(settings, field.name)) for field in fields(settings))
