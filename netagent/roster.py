"""Our lease and everybody's, beside what of them is in the kernel: what `netctl leases` and `netctl peers` show.

Nothing is kept for it: it is put together when somebody asks.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controlloop.family import Family, IPAddress
from netagent.backends.backend import Node
from netagent.overlay import OWN, Overlay
from netagent.probing.paths import Path
from netagent.state import FdbEntry, Key, LinkAddress, Object, Route, WireguardPeer
from subnet_alloc.model import Lease
from subnet_alloc.registry import Record
from subnet_alloc.snapshot import LeaseSnapshot

API_VERSION = "nodenet.io/v1alpha1"


@dataclass(frozen=True, slots=True)
class Roster:
    own: str
    """Key of our own lease."""
    node: Node
    snapshot: LeaseSnapshot
    overlay: Overlay
    missing: Collection[Key] = ()
    """Objects that are not in the kernel as they should be."""
    converged: bool = True
    """Everything else is in."""

    @property
    def own_addresses(self) -> dict[Family, IPAddress]:
        """Ours on the overlay; host-gw and alloc give a node none."""
        objects = self.overlay.of(OWN).values()
        return {Family.of(each.address): each.address for each in objects if isinstance(each, LinkAddress)}

    def peers(self) -> Iterator[str]:
        """Those that we have taken up, by the keys of their leases."""
        return (owner for owner in self.overlay.owners() if owner != OWN)

    def is_programmed(self, peer: str) -> bool:
        wanted = self.overlay.of(peer)
        return self.converged and bool(wanted) and not any(key in self.missing for key in wanted)


def peers_document(roster: Roster | None, paths: Mapping[str, Path], now: float, wall: float) -> dict[str, Any]:
    """`now` is the clock of the paths, `wall` the same moment in seconds since the epoch."""
    items = []
    if roster:
        leases = roster.snapshot.leases
        offset = wall - now
        items = [peer_item(roster, key, leases[key], paths.get(key), offset) for key in sorted(leases)]
    return {"apiVersion": API_VERSION, "kind": "PeerList", "items": [item for item in items if item]}


def peer_item(roster: Roster, key: str, lease: Lease, path: Path | None, offset: float) -> dict[str, Any]:
    if key == roster.own:
        return {}
    objects = roster.overlay.of(key).values()
    skipped = roster.overlay.skipped.get(key)
    return {
        "key": key,
        **lease_facts(lease),
        "mac": first(each.mac for each in objects if isinstance(each, FdbEntry)),
        "device": first(device_of(each) for each in objects if isinstance(each, Route | WireguardPeer)),
        "programmed": roster.is_programmed(key),
        "skipped": skipped.reason if skipped else None,
        **path_facts(path, offset),
    }


def path_facts(path: Path | None, offset: float) -> dict[str, Any]:
    """Times in seconds since the epoch; all None where nobody probes."""
    if path is None:
        return dict.fromkeys(("reach", "rtt_ms", "last_answer", "lost_since", "large_lost_since"))
    return {
        "reach": path.reach.value,
        "rtt_ms": None if path.rtt_s is None else round(path.rtt_s * 1000, 3),
        "last_answer": at(path.small.answered_at, offset),
        "lost_since": at(path.lost_since, offset),
        "large_lost_since": at(path.too_small_since, offset),
    }


def leases_document(roster: Roster | None) -> dict[str, Any]:
    items = []
    if roster:
        records = roster.snapshot.records
        items = [lease_item(roster, key, records[key]) for key in sorted(records)]
    return {"apiVersion": API_VERSION, "kind": "LeaseList", "items": items}


def lease_item(roster: Roster, key: str, record: Record) -> dict[str, Any]:
    skipped = roster.snapshot.skipped.get(key) or roster.overlay.skipped.get(key)
    lease = roster.snapshot.leases.get(key)
    return {
        "key": key,
        **(lease_facts(lease) if lease else {"subnets": [], "public_ips": [], "backend": None}),
        "own": key == roster.own,
        "expires": bool(record.lease_id),
        "revision": record.revision,
        "skipped": skipped.reason if skipped else None,
    }


def lease_facts(lease: Lease) -> dict[str, Any]:
    return {
        "subnets": [str(subnet) for subnet in lease.subnets.values()],
        "public_ips": [str(address) for address in lease.attrs.public_ip.values()],
        "backend": lease.attrs.backend_type,
    }


def first(values: Iterator[str]) -> str | None:
    return next(values, None)


def device_of(one: Object) -> str:
    return one.device if isinstance(one, Route | WireguardPeer) else ""


def at(moment: float | None, offset: float) -> float | None:
    return None if moment is None else round(moment + offset, 3)
