"""Addresses and networks as the kernel's tools print them, so that reading back compares text. Pure."""

from socket import inet_ntop

from controlloop.family import Family

_BINARY = {family: (family.af, family.bits // 8) for family in Family}
"""The kernel's number for a family, and the length of its addresses in bytes: a start prints a hundred thousand."""


def host(family: Family, address: int) -> str:
    """An address as inet_ntop(3) writes it.

    It is taken as a number because an IPv6Address carries a scope, which is free text. Unlike ipaddress, inet_ntop
    ends an IPv4-mapped or IPv4-compatible address in dotted decimal.
    """
    af, size = _BINARY[family]
    return inet_ntop(af, address.to_bytes(size))


def network(family: Family, address: int, length: int) -> str:
    return f"{host(family, address)}/{length}"
