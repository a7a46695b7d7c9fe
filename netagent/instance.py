"""Which of a node's overlays an agent serves, and what marks its objects in the kernel.

Pure. A node has one agent for each overlay. They tell their own objects from each other's by one small number, which
stands in every name and is subtracted from the protocol of routes.
"""

from dataclasses import dataclass

LIMIT = 7
"""Nobody uses 71 to 78 in the protocol column of routes; Babel has 42, Calico 80 (iproute2's rt_protos)."""


@dataclass(frozen=True, slots=True)
class Instance:
    number: int = 0
    """0 to LIMIT."""

    @property
    def _tag(self) -> str:
        return str(self.number) if self.number else ""

    @property
    def alias(self) -> str:
        """Written on a device at creation: however it is named, a later run, or cleanup, knows it by this as ours."""
        return f"nodenet{self._tag}"

    @property
    def protocol(self) -> int:
        """In the protocol column of a route. rtnetlink.h leaves the values above RTPROT_STATIC (4) to user space."""
        return 78 - self.number

    @property
    def program(self) -> str:
        """Names the lock, the status socket and the tables in nftables."""
        return f"netagent{self._tag}"

    @property
    def chain_prefix(self) -> str:
        """Begins the names of chains in iptables; no instance's begins another's."""
        return f"NETAGENT{self._tag}-"

    def is_anothers(self, alias: str) -> bool:
        return alias != self.alias and alias in {Instance(number).alias for number in range(LIMIT + 1)}

    @property
    def adopts(self) -> bool:
        """Whether it is the one that takes over, and cleans up, all that a flanneld left here: the first."""
        return self.number == 0


FIRST = Instance()
