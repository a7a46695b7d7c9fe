"""Which slices belong to which Service, whatever they came from. Pure."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from proxy.endpoints import ServiceSlice
from proxy.frontends import ServiceName
from proxy.objects import Kind, ObjectName

Origin = tuple[Kind, ObjectName]
"""The object that a slice came from."""


class Slices:
    def __init__(self) -> None:
        self._slices: dict[Origin, tuple[ServiceSlice, ...]] = {}
        self._origins: dict[ServiceName, tuple[Origin, ...]] = {}
        """Tuples, as most have one, and a set of one is large."""

    @property
    def origins(self) -> AbstractSet[Origin]:
        return self._slices.keys()

    def all(self) -> list[tuple[Origin, tuple[ServiceSlice, ...]]]:
        """What each object gives now."""
        return list(self._slices.items())

    def of(self, service: ServiceName) -> list[ServiceSlice]:
        """v1 Endpoints count only where there are no slices: they say the same, later and cut off at 1,000."""
        origins = self._origins.get(service, ())
        chosen = [origin for origin in origins if origin[0] is Kind.ENDPOINT_SLICE] or origins
        return [service_slice for origin in chosen for service_slice in self._slices[origin]]

    def with_hints(self) -> set[ServiceName]:
        """Services whose endpoints are for some zones rather than others."""
        every = (service_slice for slices in self._slices.values() for service_slice in slices)
        return {each.service for each in every if any(candidate.zone_hints for candidate in each.candidates)}

    def replace(self, origin: Origin, new: tuple[ServiceSlice, ...]) -> set[ServiceName]:
        """Let an object give these slices from now on; gives back the Services that this concerns."""
        old = self._slices.pop(origin, ())
        if new:
            self._slices[origin] = new
        if old == new:
            return set()
        before, after = _services(old), _services(new)
        for service in before - after:
            others = tuple(each for each in self._origins.pop(service) if each != origin)
            if others:
                self._origins[service] = others
        for service in after - before:
            self._origins[service] = (*self._origins.get(service, ()), origin)
        return before | after


def _services(slices: Iterable[ServiceSlice]) -> set[ServiceName]:
    return {each.service for each in slices}
