"""How the frontends of Services change from one state of the proxy to another. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlloop.family import IPAddress
from proxy.frontends import Frontend, Protocol, Scope, ServiceName
from proxy.tracker import Tracker

SETTINGS = ("balance", "scope", "refusal", "affinity_s", "sources", "drain_s", "inside")
"""What a frontend has beside its endpoints, and rules depend on."""

Place = tuple[IPAddress, Protocol, int]


@dataclass(frozen=True, slots=True)
class FrontendChange:
    before: Frontend | None
    after: Frontend | None

    @property
    def one(self) -> Frontend:
        found = self.after or self.before
        assert found is not None
        return found

    @property
    def verb(self) -> str:
        if self.before is None:
            return "added"
        return "changed" if self.after else "removed"

    @property
    def endpoints(self) -> tuple[list[str], list[str]]:
        """Those that come, and those that go."""
        before, after = (list(map(str, each.endpoints)) if each else [] for each in (self.before, self.after))
        return [each for each in after if each not in before], [each for each in before if each not in after]

    @property
    def settings(self) -> Iterator[dict[str, str]]:
        if self.before and self.after:
            for name in SETTINGS:
                old, new = shown(getattr(self.before, name)), shown(getattr(self.after, name))
                if old != new:
                    yield {"name": name, "before": old, "after": new}
            old, new = weights(self.before), weights(self.after)
            if old != new:
                yield {"name": "weights", "before": old, "after": new}

    @property
    def item(self) -> dict[str, Any]:
        come, go = self.endpoints
        return {
            "address": None if self.one.scope is Scope.NODE_PORT else str(self.one.address),
            "family": self.one.family.nft,
            "protocol": self.one.protocol.value,
            "port": self.one.port,
            "scope": self.one.scope.value,
            "change": self.verb,
            "endpoints": len(self.after.endpoints) if self.after else 0,
            "endpoints_added": come,
            "endpoints_removed": go,
            "settings": list(self.settings),
        }


def shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return str(getattr(value, "value", value))


def weights(frontend: Frontend) -> str:
    """Where they count: of endpoints that all weigh alike they do not."""
    each = {str(endpoint): endpoint.weight for endpoint in frontend.endpoints}
    return shown(tuple(f"{name} {weight}" for name, weight in each.items())) if len(set(each.values())) > 1 else "none"


@dataclass(frozen=True, slots=True)
class ServiceChange:
    service: ServiceName
    frontends: Sequence[FrontendChange]
    verb: str
    """`added`, `removed`, `changed` or `unchanged`."""

    @property
    def item(self) -> dict[str, Any]:
        frontends = [each.item for each in self.frontends]
        return {"service": str(self.service), "change": self.verb, "frontends": frontends}


def service_change(
    service: ServiceName, before: Tracker, after: Tracker, *, is_given_more: bool = False
) -> ServiceChange:
    """`is_given_more`: it lacks addresses or ports, and without an address it is none of the tracker's Services."""
    had, has = by_place(before.frontends(service)), by_place(after.frontends(service))
    places = [*has, *(place for place in had if place not in has)]
    changes = [FrontendChange(had.get(place), has.get(place)) for place in places]
    told = [each for each in changes if each.before is None or each.after is None or is_visible(each)]
    was, stays = service in before.services(), service in after.services()
    if was:
        verb = "removed" if not stays else "changed" if told or is_given_more else "unchanged"
    else:
        verb = "added" if stays or is_given_more else "unchanged"
    return ServiceChange(service, told, verb)


def is_visible(change: FrontendChange) -> bool:
    return change.endpoints != ([], []) or any(change.settings)


def by_place(frontends: Sequence[Frontend]) -> Mapping[Place, Frontend]:
    return {frontend.key: frontend for frontend in frontends}


def place_text(item: Mapping[str, Any]) -> str:
    """As it is called: `10.96.0.1:80/tcp`, `node port 30080/tcp`."""
    port = f"{item['port']}/{item['protocol']}"
    if item["address"] is None:
        return f"node port {port}" if item["family"] == "ip" else f"node port {port} over IPv6"
    address = f"[{item['address']}]" if ":" in item["address"] else item["address"]
    return f"{address}:{port}"
