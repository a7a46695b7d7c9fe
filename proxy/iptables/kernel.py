"""The kernel's side of the iptables backend."""

from controlloop.family import Family
from controlloop.iptables.kernel import IptablesChains, Variant
from proxy.iptables.chains import OURS


class IptablesBackend(IptablesChains):
    """One family's chains `NETPROXY-*`. Without a variant: the host's."""

    def __init__(self, family: Family, variant: Variant | None = None) -> None:
        super().__init__(family, OURS, variant)
