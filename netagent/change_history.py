"""What changed about peers, leases and the overlay, in words for `netctl events`."""

from collections import Counter
from collections.abc import Collection, Mapping

from controlloop.delta import Delta
from controlloop.history import History, Repair
from netagent.overlay import Overlay
from netagent.state import Key, Object
from subnet_alloc.model import Lease


class PeerHistory:
    def __init__(self, history: History, overlay: Overlay) -> None:
        self._history = history
        self._overlay = overlay
        self._known: dict[str, Lease] = {}
        self._has_started = False

    def followed(self) -> None:
        """The overlay has just moved on."""
        changes: dict[str, tuple[Lease | None, Lease | None]] = {}
        for name in sorted(self._overlay.judged):
            before, now = self._known.pop(name, None), self._overlay.lease(name)
            if now:
                self._known[name] = now
            if before != now:
                changes[name] = (before, now)
        if self._has_started:
            self._history.noted("peer", changes, "lease", both)
            return
        self._has_started = True
        self._history.note("overlay", "started", new=(f"{len(self._known)} peers",), trigger="startup")


def both(before: Lease | None, now: Lease | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return facts(before) if before else (), facts(now) if now else ()


def facts(lease: Lease) -> tuple[str, ...]:
    """What it tells its peers."""
    attrs = lease.attrs
    return (
        *(f"subnet {subnet}" for subnet in lease.subnets.values()),
        *(f"public ip {address}" for address in attrs.public_ip.values()),
        *(f"{attrs.backend_type} {words(each)}" for each in attrs.backend_data.values()),
    )


def words(backend_data: object) -> str:
    if isinstance(backend_data, Mapping):
        return " ".join(f"{name} {value}" for name, value in backend_data.items())
    return str(backend_data)


def note_repairs(
    history: History, delta: Delta[Key, Object], keys: Collection[Key], writers: Mapping[Key, str]
) -> None:
    """These objects of a change were put right; `writers` did it, as far as that is known."""
    if keys:
        repairs = (repair(key, delta.drop.get(key), delta.put.get(key), writers.get(key, "")) for key in keys)
        history.repaired(Counter(key.kind for key in keys), repairs)


def repair(key: Key, actual: Object | None, desired: Object | None, writer: str) -> Repair:
    old, new = ((str(value),) if value else () for value in (actual, desired))
    first = (*new, *old, "")[0].partition(" ")[0]
    return Repair(f"{key.kind} {first}", old, new, writer)
