"""Addresses and networks as the kernel's tools print them, so that reading back compares text. Pure."""

from ipaddress import IPv6Address

from controlloop.family import Family


def host(family: Family, address: int) -> str:
    """An address as inet_ntop(3) writes it.

    It is taken as a number because an IPv6Address carries a scope, which is free text. Unlike ipaddress, inet_ntop
    ends an IPv4-mapped or IPv4-compatible address in dotted decimal.
    """
    if family is Family.V4:
        return _dotted(address)
    mapped = address >> 32 == 0xFFFF
    compatible = 0xFFFF < address < 1 << 32
    if mapped or compatible:
        return f"::{'ffff:' if mapped else ''}{_dotted(address & 0xFFFFFFFF)}"
    return str(IPv6Address(address))


def _dotted(address: int) -> str:
    return ".".join(map(str, address.to_bytes(4)))


def network(family: Family, address: int, length: int) -> str:
    return f"{host(family, address)}/{length}"
