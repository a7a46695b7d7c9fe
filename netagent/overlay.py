"""The desired overlay as it moves with the leases: one changed peer costs that peer, not all of them.

Pure. Peers may contradict each other, with one subnet or one MAC in two leases: only the lease's key is guarded by the
registry. The lease written last then counts: a node that came back under another name or address wrote it, and the
other is what it left behind. But whoever claims a part of another's subnet, or more than that, does not get it: a
subnet of the length that all have here comes first.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from controlloop.delta import Delta, Ledger
from controlloop.errors import Skipped
from netagent.backends.backend import Node
from netagent.desired import Grounds, grounds, own_state, peer_state
from netagent.overlap import Overlaps
from netagent.state import Key, Object, OverlayState
from subnet_alloc.model import Lease
from subnet_alloc.snapshot import LeaseSnapshot

OWN = ""
"""Owner of what our own lease wants; no lease has an empty key."""


class Overlay:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._own: Lease | None = None
        self._grounds: Grounds = {}
        self._ledger: Ledger[str, Key, Object] = Ledger()
        self._overlaps = Overlaps({})
        self._followed: dict[str, Lease] = {}
        self._skipped: dict[str, Skipped] = {}
        self._rivals: set[str] = set()
        """Skipped for the sake of another peer, and to be tried again when something changes."""
        self.judged: set[str] = set()
        """Leases that the last `follow` took up, put away or looked at again."""
        self.version = 0
        """Another one whenever `objects` changed."""

    @property
    def objects(self) -> OverlayState:
        """All that is desired."""
        return MappingProxyType(self._ledger.objects)

    @property
    def skipped(self) -> Mapping[str, Skipped]:
        """Leases that are left out, by key."""
        return MappingProxyType(self._skipped)

    @property
    def peers(self) -> int:
        return sum(owner != OWN for owner in self._ledger.owners())

    def owners(self) -> Iterator[str]:
        """OWN, and the keys of the leases that are followed."""
        return self._ledger.owners()

    def owned(self) -> Mapping[str, Sequence[Key]]:
        """Which objects each owner wants now; nobody changes it any more."""
        return self._ledger.owned()

    def of(self, owner: str) -> OverlayState:
        """What one owner wants."""
        return self._ledger.of(owner)

    def lease(self, name: str) -> Lease | None:
        """As it is followed; None: it is not."""
        return self._followed.get(name)

    def stand_on(self, node: Node) -> None:
        """Take note of changed surroundings; the next `follow` judges every lease anew."""
        if node != self._node:
            self._node = node
            self._own = None

    def follow(self, own_key: str, own: Lease, snapshot: LeaseSnapshot, changed: Collection[str]) -> Delta[Key, Object]:
        """Move on to the snapshot; gives back what that changes in `objects`.

        `changed` are the keys of leases that are not as they were in the snapshot before.
        """
        delta: Delta[Key, Object] = Delta()
        if own != self._own:
            self._own, self._grounds = own, grounds(self._node, own)
            self._overlaps = Overlaps({family: subnet.prefixlen for family, subnet in own.subnets.items()})
            self._ledger.replace(OWN, own_state(self._node, own), delta)
            # What a peer may be depends on what we are.
            changed = {*snapshot.leases, *self._ledger.owners(), *self._skipped} - {OWN}
        again = {*changed, *self._rivals}
        self.judged = set(again)
        self._forget(again, delta)
        leases = [name for name in again if name in snapshot.leases and name != own_key]
        for name in sorted(leases, key=lambda name: (snapshot.records[name].revision, name), reverse=True):
            self._place(name, peer_state(name, snapshot.leases[name], self._node, self._grounds), snapshot, delta)
        self.version += bool(delta)
        return delta

    def _forget(self, names: Iterable[str], delta: Delta[Key, Object]) -> None:
        for name in names:
            self._let_go(name, delta)
            self._skipped.pop(name, None)
            self._rivals.discard(name)

    def _place(
        self, name: str, wanted: OverlayState | Skipped, snapshot: LeaseSnapshot, delta: Delta[Key, Object]
    ) -> None:
        if isinstance(wanted, Skipped):
            self._skipped[name] = wanted
            return
        lease = snapshot.leases[name]
        overlapping = self._overlaps.with_lease(lease)
        if overlapping and not self._overlaps.is_regular(lease):
            self._set_aside(name, f"overlaps {min(overlapping)}, whose subnet is as long as ours", delta)
            return
        for other in overlapping:
            self._set_aside(other, f"overlaps {name}, whose subnet is as long as ours", delta)
        rivals = self._owners_against(wanted)
        newest = max([name, *rivals], key=lambda name: (snapshot.records[name].revision, name))
        for loser in {name, *rivals} - {newest}:
            self._set_aside(loser, f"contradicts {newest}, which was written later", delta)
        if newest == name:
            self._ledger.replace(name, wanted, delta)
            self._overlaps.put(name, lease)
            self._followed[name] = lease

    def _set_aside(self, name: str, reason: str, delta: Delta[Key, Object]) -> None:
        """For the sake of another peer."""
        self._let_go(name, delta)
        self._rivals.add(name)
        self.judged.add(name)
        self._skipped[name] = Skipped(name, reason)

    def _let_go(self, name: str, delta: Delta[Key, Object]) -> None:
        self._ledger.replace(name, {}, delta)
        if lease := self._followed.pop(name, None):
            self._overlaps.drop(name, lease)

    def _owners_against(self, wanted: OverlayState) -> list[str]:
        contested = [key for key, value in wanted.items() if self._ledger.objects.get(key, value) != value]
        if not contested:
            return []
        return [
            owner
            for owner in self._ledger.owners()
            if any(self._ledger.of(owner).get(key, wanted[key]) != wanted[key] for key in contested)
        ]
