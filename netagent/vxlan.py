"""The VXLAN backend's words: its options in the network configuration, and what a node tells its peers about it.

Pure. Option names, defaults and meaning are flannel's, so that one configuration serves both in a mixed overlay.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controlloop.errors import OperatorError
from controlloop.family import Family
from subnet_alloc.codec import option

BACKEND = "vxlan"

# The kernel's own default, from before IANA assigned 4789; flannel never sets another, so its overlays speak on it.
KERNEL_PORT = 8472

MAX_VNI = 2**24 - 1  # RFC 7348: 24 bits

# Outer IP, UDP, VXLAN and inner Ethernet header, by the family that carries them.
ENCAP_OVERHEAD = {Family.V4: 50, Family.V6: 70}

# The least a link may carry: RFC 791 and RFC 8200.
LEAST_MTU = {Family.V4: 68, Family.V6: 1280}

DEVICE_PREFIX = {Family.V4: "flannel", Family.V6: "flannel-v6"}


@dataclass(frozen=True, slots=True)
class VxlanOptions:
    vni: int = 1
    port: int = KERNEL_PORT
    mtu: int = 0
    """MTU of the underlay, headers included; 0: what the interface has."""
    gbp: bool = False
    learning: bool = False


def parse_options(backend_type: str, options: Mapping[str, Any]) -> VxlanOptions:
    """The Backend object of a network configuration. OperatorError names the option and its value."""
    if backend_type.lower() != BACKEND:
        raise OperatorError(f'Backend.Type "{backend_type}": not a backend of netagent; use {BACKEND}')
    if boolean(options, "DirectRouting", default=False):
        raise OperatorError("Backend.DirectRouting true: netagent sends all traffic through the overlay; use false")
    return VxlanOptions(
        vni=number(options, "VNI", default=1, limit=MAX_VNI),
        port=number(options, "Port", default=0, limit=65535) or KERNEL_PORT,
        mtu=number(options, "MTU", default=0, limit=65535),
        gbp=boolean(options, "GBP", default=False),
        learning=boolean(options, "Learning", default=False),
    )


def number(options: Mapping[str, Any], name: str, *, default: int, limit: int) -> int:
    found = option(options, name)
    value = default if found is None else found
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
        raise OperatorError(f"Backend.{name} {value!r}: not a number from 0 to {limit}")
    return value


def boolean(options: Mapping[str, Any], name: str, *, default: bool) -> bool:
    found = option(options, name)
    value = default if found is None else found
    if not isinstance(value, bool):
        raise OperatorError(f"Backend.{name} {value!r}: not true or false")
    return value


def device_name(family: Family, vni: int) -> str:
    return f"{DEVICE_PREFIX[family]}.{vni}"


def inner_mtu(options: VxlanOptions, family: Family, underlay_mtu: int) -> int:
    """What the overlay can carry in one packet. The kernel holds the device to what the interface leaves, so a larger
    MTU option would only make pods believe in packets that never fit.
    """
    outer = min(options.mtu or underlay_mtu, underlay_mtu)
    inner = outer - ENCAP_OVERHEAD[family]
    if inner < LEAST_MTU[family]:
        raise OperatorError(f"Backend.MTU {outer}: leaves {inner} bytes, and a link needs {LEAST_MTU[family]}")
    return inner


def vtep_mac(node: str, device: str) -> str:
    """A locally administered unicast MAC that a node keeps over restarts, reboots and the loss of its device: peers
    that learned it need not learn anew.
    """
    digest = hashlib.sha256(f"{node}/{device}".encode()).digest()
    return bytes([digest[0] & 0xFC | 0x02, *digest[1:6]]).hex(":")


MAC = re.compile(r"[0-9a-f]{2}([:-])([0-9a-f]{2}\1){4}[0-9a-f]{2}|[0-9a-f]{4}(\.[0-9a-f]{4}){2}")


def parse_mac(text: object) -> str:
    """A unicast MAC in lower-case colon form. ValueError for what cannot be a VTEP's address."""
    if not isinstance(text, str) or not MAC.fullmatch(text.lower()):
        raise ValueError("not a MAC address")
    mac = bytes.fromhex(re.sub("[:.-]", "", text))
    if mac[0] & 1:
        raise ValueError("a multicast address")
    if not any(mac):
        raise ValueError("all zero")
    return mac.hex(":")


def backend_data(vni: int, mac: str) -> dict[str, Any]:
    """What a lease says about its VTEP, in the order flanneld writes it."""
    return {"VNI": vni, "VtepMAC": mac}


def mac_of_backend_data(backend_data: object) -> str:
    """The VTEP's MAC; ValueError says what is wrong with it."""
    if not isinstance(backend_data, Mapping):
        raise ValueError("no VtepMAC")  # noqa: TRY004 - the fault is in a lease's value, not in our call
    text = option(backend_data, "VtepMAC")
    try:
        return parse_mac(text)
    except ValueError as error:
        raise ValueError(f"VtepMAC {text!r}: {error}") from error
