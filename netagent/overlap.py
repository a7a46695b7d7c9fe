"""Which peers' subnets overlap. Pure.

Subnets of one length are equal or apart, and equal ones contradict each other in the kernel already. What is left are
subnets of another length than the network's: inside of a node's subnet one would take a part of its pods, and the
kernel prefers it. So they are looked up against those of the usual length, and the other way round.
"""

from collections.abc import Iterator, Mapping

from controlloop.family import Family, IPNetwork
from subnet_alloc.model import Lease


class Overlaps:
    """Leases by name. `usual` are the lengths that subnets have here; a family that is not in it does not count."""

    def __init__(self, usual: Mapping[Family, int]) -> None:
        self._usual = usual
        self._regular: dict[IPNetwork, str] = {}
        self._others: dict[str, Lease] = {}

    def is_regular(self, lease: Lease) -> bool:
        return all(subnet.prefixlen == self._usual[family] for family, subnet in self._counted(lease))

    def put(self, name: str, lease: Lease) -> None:
        if self.is_regular(lease):
            self._regular.update({subnet: name for _, subnet in self._counted(lease)})
        else:
            self._others[name] = lease

    def drop(self, name: str, lease: Lease) -> None:
        self._others.pop(name, None)
        for _, subnet in self._counted(lease):
            if self._regular.get(subnet) == name:
                del self._regular[subnet]

    def with_lease(self, lease: Lease) -> set[str]:
        """Names of those of the other kind that overlap it: regular ones for one that is not, or the reverse."""
        subnets = [subnet for _, subnet in self._counted(lease)]
        if self.is_regular(lease):
            return {
                name
                for name, other in self._others.items()
                if any(mine.overlaps(its) for _, its in self._counted(other) for mine in subnets)
            }
        return {self._regular[each] for subnet in subnets for each in self._regular_under(subnet)}

    def _counted(self, lease: Lease) -> Iterator[tuple[Family, IPNetwork]]:
        return ((family, subnet) for family, subnet in lease.subnets.items() if family in self._usual)

    def _regular_under(self, subnet: IPNetwork) -> Iterator[IPNetwork]:
        """Those of the usual length that overlap it, at the cost of the lesser: what it may hold, or what there is."""
        usual = self._usual[Family.of(subnet)]
        if subnet.prefixlen >= usual:
            around = subnet.supernet(new_prefix=usual)
            return iter([around] if around in self._regular else [])
        if 1 << (usual - subnet.prefixlen) < len(self._regular):
            return (each for each in subnet.subnets(new_prefix=usual) if each in self._regular)
        return (each for each in self._regular if each.version == subnet.version and each.overlaps(subnet))
