"""What a peer's lease may not do to this node.

Pure. Whoever can write to the registry writes leases, and a lease becomes routes and neighbors on every node. So a
lease is held against what we know of ourselves: it may carry traffic to its own part of the pod network, and no other.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv6Address, ip_network
from typing import NamedTuple

from controlloop.family import Family, IPAddress, IPNetwork

RESERVED: dict[Family, tuple[tuple[str, IPNetwork], ...]] = {
    Family.V4: (
        ("this network (RFC 1122)", ip_network("0.0.0.0/8")),
        ("loopback", ip_network("127.0.0.0/8")),
        ("link-local", ip_network("169.254.0.0/16")),
        ("multicast", ip_network("224.0.0.0/4")),
        ("broadcast", ip_network("255.255.255.255/32")),
    ),
    Family.V6: (
        ("unspecified, loopback or IPv4-mapped", ip_network("::/8")),
        ("link-local", ip_network("fe80::/10")),
        ("multicast", ip_network("ff00::/8")),
    ),
}
"""Addresses that no node and no pod has (RFC 6890, RFC 4291). 240.0.0.0/4 is not among them: Linux routes it, and there
are clusters on it.
"""

COLON_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)


class Taken(NamedTuple):
    """Addresses that are not a peer's, as numbers: ipaddress compares 5,000 leases in seconds, integers in ms."""

    first: int
    last: int
    meaning: str


def span(network: IPNetwork) -> tuple[int, int]:
    # Not by its hostmask, which ipaddress keeps in the network from then on.
    first = int(network.network_address)
    return first, first | (1 << (network.max_prefixlen - network.prefixlen)) - 1


@dataclass(frozen=True)
class Ground:
    """What is ours in one family."""

    network: IPNetwork
    """The pod network: nothing outside of it is a peer's."""
    own_subnet: IPNetwork
    own_addresses: Collection[IPAddress]
    """Of the underlay interface, and where peers send to."""
    underlay: Collection[IPNetwork] = ()
    """What is on the underlay's link."""
    service_cidrs: Collection[IPNetwork] = ()
    """Those of the other family do not count."""
    own_mac: str = ""
    """Of our VTEP; empty when there is none."""

    @property
    def family(self) -> Family:
        return Family.of(self.network)

    @cached_property
    def no_subnet(self) -> tuple[Taken, ...]:
        """What a peer's subnet may not overlap."""
        links = [Taken(*span(each), f"overlaps the underlay, {each}") for each in self.underlay]
        ours = [Taken(int(each), int(each), f"covers our address {each}") for each in self.own_addresses]
        services = [Taken(*span(each), f"overlaps the services' {each}") for each in self._services]
        return (
            *(Taken(*span(each), f"overlaps {each}, {meaning}") for meaning, each in RESERVED[self.family]),
            Taken(*span(self.own_subnet), f"overlaps ours, {self.own_subnet}"),
            *ours,
            *links,
            *services,
        )

    @cached_property
    def no_address(self) -> tuple[Taken, ...]:
        """Where a peer's public IP may not lie."""
        return (
            *(Taken(*span(each), f"lies in {each}, {meaning}") for meaning, each in RESERVED[self.family]),
            *(Taken(int(each), int(each), "is ours") for each in self.own_addresses),
            *(
                Taken(end, end, f"is a broadcast address of the underlay {each}")
                for each in self.underlay
                for end in broadcast_addresses(each)
            ),
            Taken(*span(self.own_subnet), f"lies inside our subnet {self.own_subnet}"),
            *(Taken(*span(each), f"lies in the services' {each}") for each in self._services),
        )

    @property
    def _services(self) -> Iterator[IPNetwork]:
        return (each for each in self.service_cidrs if Family.of(each) is self.family)


def broadcast_addresses(link: IPNetwork) -> tuple[int, ...]:
    """The first address of an IPv4 link is the old one. Links of two addresses have none (RFC 3021)."""
    if Family.of(link) is Family.V6 or link.prefixlen >= Family.V4.bits - 1:
        return ()
    return span(link)


def objection(subnet: IPNetwork, public_ip: IPAddress | None, mac: str | None, ground: Ground) -> str:
    """What is wrong with a peer's lease, in one phrase that names the value; empty when it may be followed.

    `mac` is its VTEP's in lower-case colon form; None for a backend without.
    """
    about_mac = "" if mac is None else mac_objection(mac, ground)
    return subnet_objection(subnet, ground) or address_objection(public_ip, subnet, ground) or about_mac


def subnet_objection(subnet: IPNetwork, ground: Ground) -> str:
    if subnet.version != ground.network.version:
        return f"subnet {subnet}: not an IPv{ground.network.version} network"
    if not subnet.prefixlen:
        return f"subnet {subnet} is a default route"
    first, last = span(subnet)
    for taken in ground.no_subnet:
        if first <= taken.last and taken.first <= last:
            return f"subnet {subnet} {taken.meaning}"
    lowest, highest = span(ground.network)
    return "" if lowest <= first and last <= highest else f"subnet {subnet} lies outside the network {ground.network}"


def address_objection(public_ip: IPAddress | None, subnet: IPNetwork, ground: Ground) -> str:
    if public_ip is None or public_ip.version != ground.network.version:
        return f"public IP {public_ip}: not an IPv{ground.network.version} address"
    if isinstance(public_ip, IPv6Address) and public_ip.scope_id is not None:
        return f"public IP {str(public_ip)!r}: has a scope"
    address = int(public_ip)
    for taken in ground.no_address:
        if taken.first <= address <= taken.last:
            return f"public IP {public_ip} {taken.meaning}"
    first, last = span(subnet)
    return f"public IP {public_ip} lies inside its own subnet {subnet}" if first <= address <= last else ""


def mac_objection(mac: str, ground: Ground) -> str:
    if not COLON_MAC.fullmatch(mac):
        return f"VtepMAC {mac!r}: not a MAC address"
    octets = bytes.fromhex(mac.replace(":", ""))
    if not any(octets):
        return f"VtepMAC {mac}: all zero"
    if octets[0] & 1:  # IEEE 802: the group bit; broadcast has it too
        return f"VtepMAC {mac}: a multicast address"
    return f"VtepMAC {mac} is ours: do two nodes have one name?" if mac == ground.own_mac else ""
