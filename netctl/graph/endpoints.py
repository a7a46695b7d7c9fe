"""Whose pod an endpoint is: the node whose subnet holds its address. Pure."""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network


class Owners:
    """Looks an address up by each prefix length that some subnet has: two or three, of however many nodes."""

    def __init__(self, subnets: Iterable[tuple[str, str]]) -> None:
        """Pairs of a subnet and the id of its node."""
        self._ids: dict[tuple[int, int, int], str] = {}
        for text, owner in subnets:
            subnet = ip_network(text)
            host_bits = subnet.max_prefixlen - subnet.prefixlen
            self._ids[subnet.version, host_bits, int(subnet.network_address) >> host_bits] = owner
        self._found: dict[str, str | None] = {}
        self._sizes = sorted({(version, host_bits) for version, host_bits, _ in self._ids})

    def of(self, address: str) -> str | None:
        """The id of the node; None for an address outside all subnets, such as a node's own."""
        # Many Services share endpoints, and reading an address costs more than all else here.
        if address not in self._found:
            self._found[address] = self._find(address)
        return self._found[address]

    def _find(self, address: str) -> str | None:
        one = ip_address(address)
        for version, host_bits in self._sizes:
            if version == one.version and (found := self._ids.get((version, host_bits, int(one) >> host_bits))):
                return found
        return None
