"""The kernel's side of the nftables backend."""

from controlloop.family import Family
from controlloop.nft.kernel import NftTable
from proxy.nftables.desired import constant_objects
from proxy.node import Surroundings

TABLE = "netproxy"


class NftablesBackend(NftTable):
    """One family's table `netproxy`."""

    def __init__(self, family: Family) -> None:
        # The surroundings stand in rules alone, and those can be changed in place.
        constant = dict(constant_objects(Surroundings(family)))
        super().__init__(family, TABLE, lambda: constant)
