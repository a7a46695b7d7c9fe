"""Addresses and networks out of an object's text. Pure.

What leaves here is an address or a network and nothing else, whoever wrote the text.
"""

import re
from bisect import bisect
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_network
from socket import AF_INET, inet_pton

from controlloop.family import IPAddress, IPNetwork
from controlloop.printable import printable
from proxy.objects import RefusedError

# Loopback, link-local, multicast and unspecified, in order.
ELSEWHERE = ("0.0.0.0/32", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4"), ("::/127", "fe80::/10", "ff00::/8")
_EDGES = {
    ip_network(networks[0]).version: [
        edge for network in map(ip_network, networks) for edge in (int(network[0]), int(network[-1]) + 1)
    ]
    for networks in ELSEWHERE
}
_DOTTED = re.compile(r"\.".join(["0*([0-9]{1,3})"] * 4))


def parse_address(path: str, text: str) -> IPAddress:
    """The address in the field at `path`. RefusedError for anything no Service or endpoint may have.

    As kube-proxy does, leading zeros are read as decimal (10.020.0.1 is 10.20.0.1) and ::ffff:10.0.0.1 is IPv4. As the
    API server does for endpoints, addresses that mean something else on every node (loopback, link-local, multicast,
    unspecified) are refused.
    """
    try:
        address = _address(text)
    except ValueError:
        raise RefusedError(f"{path}: {printable(text)} is not an IP address") from None
    if bisect(_EDGES[address.version], int(address)) % 2:
        raise RefusedError(f"{path}: {address} is loopback, link-local, multicast or unspecified")
    return address


def _address(text: str) -> IPAddress:
    if ":" not in text:
        return _ipv4(text)
    # IPv6Address takes any text behind a % as a scope, and gives it back when printed into a rule.
    if "%" in text:
        raise ValueError(text)
    address = IPv6Address(text)
    return address.ipv4_mapped or address


def _ipv4(text: str) -> IPv4Address:
    """A hundred thousand of them are read at start, and inet_pton(3) does that ten times as fast as ipaddress."""
    try:
        return IPv4Address(inet_pton(AF_INET, text))
    except OSError:
        return _ipv4_with_zeros(text)


def _ipv4_with_zeros(text: str) -> IPv4Address:
    octets = _DOTTED.fullmatch(text)
    if octets is None:
        raise ValueError(text)
    return IPv4Address(bytes(map(int, octets.groups())))


def parse_network(path: str, text: str) -> IPNetwork:
    """The network in the field at `path`; bits behind the prefix are cut off, as kube-proxy does. RefusedError."""
    host, _, length = text.strip().partition("/")
    refused = RefusedError(f"{path}: {printable(text)} is not a network ADDRESS/LENGTH")
    if not (length.isascii() and length.isdigit()):
        raise refused
    try:
        network = ip_network((_address(host), int(length)), strict=False)
    except ValueError:
        raise refused from None
    # A prefix of an IPv4-mapped address counts other bits than it says.
    if (":" in host) != (network.version == 6):
        raise refused
    return network


def without_overlaps(networks: Sequence[IPNetwork]) -> tuple[IPNetwork, ...]:
    """The same addresses in as few networks as can be, sorted, IPv4 first."""
    four = (network for network in networks if isinstance(network, IPv4Network))
    six = (network for network in networks if isinstance(network, IPv6Network))
    return (*collapse_addresses(four), *collapse_addresses(six))
