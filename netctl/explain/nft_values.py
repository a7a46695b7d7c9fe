"""What an expression of nft's JSON stands for in one packet (libnftables-json(5)). Pure.

A draw has many values, each with its share; everything else has one. Registers that this file does not know are
`Unsure`; fields that the packet does not have are `NoMatchError`.
"""

from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from itertools import product
from math import prod
from operator import and_, eq, ge, gt, le, lshift, lt, ne, or_, rshift, xor
from typing import Any

from netctl.explain.walk import NoMatchError, Packet, Sight, Unsure

Shared = list[tuple[float, Any]]
MASK = 0xFFFFFFFF
ARITHMETIC: Mapping[str, Callable[[int, int], int]] = {"&": and_, "|": or_, "^": xor, "<<": lshift, ">>": rshift}
COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {"<": lt, ">": gt, "<=": le, ">=": ge, "==": eq, "!=": ne}


class Values:
    """Of one packet, among the containers of one table."""

    def __init__(self, packet: Packet, table: str, types: Mapping[str, str], sight: Sight) -> None:
        self._packet = packet
        self._table = table
        self._types = types
        self._sight = sight

    def of(self, expression: Any) -> Shared:
        if not isinstance(expression, dict):
            return [(1.0, expression)]
        ((kind, inner),) = expression.items()
        if kind == "concat":
            return self._joined(inner)
        if kind == "numgen":
            return [(1 / inner["mod"], slot + inner.get("offset", 0)) for slot in range(inner["mod"])]
        if kind == "map":
            return self._mapped(inner)
        return [(1.0, self._one(kind, inner))]

    def _joined(self, parts: list[Any]) -> Shared:
        ways = product(*(self.of(part) for part in parts))
        return [(prod(share for share, _ in way), " . ".join(str(value) for _, value in way)) for way in ways]

    def _mapped(self, inner: Mapping[str, Any]) -> Shared:
        """None where the map has no such key."""
        return [(share, self.look_up(inner["data"], key)) for share, key in self.of(inner["key"])]

    def look_up(self, data: Any, key: Any) -> Any:
        """What a map, with a name or written in the rule, has for a key; None: nothing."""
        if isinstance(data, str):
            return self._element(data, key)
        return next((value for wanted, value in data["set"] if self.fits(key, wanted)), None)

    def _element(self, reference: str, key: Any) -> str | None:
        name = reference.removeprefix("@")
        if name not in self._types:
            return "" if any(self.fits(key, each) for each in self._sight.ranges(self._table, name)) else None
        if self.full_name(reference) in self._packet.member_of:
            return ""
        return self._sight.element(self._table, name, self._types[name], str(key))

    def full_name(self, reference: str) -> str:
        """Of a set of this table."""
        return f"{self._table} {reference.removeprefix('@')}"

    def _one(self, kind: str, inner: Any) -> Any:
        match kind:
            case "payload":
                return self._field(inner)
            case "meta":
                return self._meta(inner["key"])
            case "ct":
                return self._connection(inner)
            case "fib" if inner["result"] == "type" and inner["flags"] in (["saddr"], ["daddr"]):
                address = self._packet.source if inner["flags"] == ["saddr"] else self._packet.to.address
                return "local" if self._sight.is_local(address) else "unicast"
            case "jhash":
                return self._hashed(inner)
            case _ if kind in ARITHMETIC:
                return _calculated(kind, *map(self._single, inner))
        raise Unsure(kind)

    def _single(self, expression: Any) -> Any:
        ((_, value),) = self.of(expression)
        return value

    def _field(self, inner: Mapping[str, Any]) -> Any:
        packet = self._packet
        protocol, field = inner.get("protocol"), inner.get("field")
        if protocol in ("ip", "ip6"):
            if protocol != packet.family.nft:
                raise NoMatchError
            known = {"saddr": packet.source, "daddr": packet.to.address}
            if field in known:
                return str(known[field])
            if field in ("protocol", "nexthdr"):
                return packet.protocol
        elif protocol not in ("th", packet.protocol):
            raise NoMatchError
        elif field == "dport":
            return packet.to.port
        raise Unsure(f"{protocol} {field}")

    def _meta(self, key: str) -> Any:
        packet = self._packet
        known = {
            "l4proto": packet.protocol,
            "mark": packet.mark,
            "iifname": packet.came_in,
            "iif": packet.came_in,
            "oifname": packet.goes_out,
            "oif": packet.goes_out,
            "nfproto": f"ipv{packet.family.value}",
            "protocol": packet.family.nft,
        }
        if key not in known:
            raise Unsure(f"meta {key}")
        return known[key]

    def _connection(self, inner: Mapping[str, Any]) -> Any:
        packet = self._packet
        called = packet.called or packet.to
        known = {
            "state": frozenset({"new"}),
            "status": frozenset({"dnat"} if packet.called else ()),
            "mark": 0,
            "direction": "original",
            "ip daddr": str(called.address),
            "ip6 daddr": str(called.address),
            "daddr": str(called.address),
            "proto-dst": called.port,
        }
        if inner["key"] not in known or inner.get("dir") == "reply":
            raise Unsure(f"ct {inner['key']}")
        return known[inner["key"]]

    def _hashed(self, inner: Mapping[str, Any]) -> int:
        if inner["expr"] != {"payload": {"protocol": self._packet.family.nft, "field": "saddr"}}:
            raise Unsure("a hash of more than the source")
        drawn = jhash(self._packet.source.packed, inner.get("seed", 0))
        return (drawn * int(inner["mod"]) >> 32) + int(inner.get("offset", 0))

    # -- comparing ------------------------------------------------------------------------------------------------

    def matches(self, inner: Mapping[str, Any]) -> bool:
        """One `match`. Unsure when it draws."""
        drawn = self.of(inner["left"])
        if len(drawn) != 1:
            raise Unsure("a draw that is compared")
        left, right, operator = drawn[0][1], inner["right"], inner["op"]
        if operator in ("<", ">", "<=", ">="):
            return bool(COMPARISONS[operator](left, right))
        return self.fits(left, right) != bool(operator == "!=")

    def fits(self, left: Any, right: Any) -> bool:
        """Whether a value is that one, or among those."""
        if isinstance(right, str) and right.startswith("@"):
            return self._element(right, left) is not None
        if isinstance(left, frozenset):
            return not left.isdisjoint(right if isinstance(right, list) else [right])
        if isinstance(right, list):
            return any(self.fits(left, each) for each in right)
        if isinstance(right, dict):
            return self._within(left, right)
        if isinstance(right, str) and right.endswith("*"):
            return str(left).startswith(right[:-1])
        return left == right or str(left) == str(right)

    def _within(self, left: Any, right: Mapping[str, Any]) -> bool:
        ((kind, inner),) = right.items()
        match kind:
            case "set":
                found = any(self.fits(left, each) for each in inner)
            case "elem":
                found = self.fits(left, inner["val"])
            case "prefix":
                found = ip_address(left) in ip_network(f"{inner['addr']}/{inner['len']}", strict=False)
            case "range":
                first, value, last = (_number(each) for each in (inner[0], left, inner[1]))
                found = first <= value <= last
            case "concat":
                parts = str(left).split(" . ")
                found = len(parts) == len(inner) and all(map(self.fits, parts, inner))
            case _:
                found = left == self._single(right)
        return bool(found)


def _calculated(operation: str, left: Any, right: Any) -> Any:
    """From numbers a number, from an address and a mask an address."""
    number = ARITHMETIC[operation](_number(left), _number(right))
    return str(type(ip_address(left))(number)) if isinstance(left, str) else number


def _number(value: Any) -> int:
    """Of a port or an address."""
    return value if isinstance(value, int) else int(ip_address(value))


def jhash(data: bytes, seed: int) -> int:
    """Jenkins' hash of whole words, as nft_hash.c calls it (linux/jhash.h)."""
    a = b = c = (0xDEADBEEF + len(data) + seed) & MASK
    words = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
    while len(words) > 3:
        a, b, c = _mix((a + words[0]) & MASK, (b + words[1]) & MASK, (c + words[2]) & MASK)
        words = words[3:]
    a, b, c = ((each + word) & MASK for each, word in zip((a, b, c), [*words, 0, 0], strict=False))
    return _finish(a, b, c)


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> 32 - bits) & MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for bits_a, bits_b, bits_c in ((4, 6, 8), (16, 19, 4)):
        a = (a - c & MASK) ^ _rotated(c, bits_a)
        c = c + b & MASK
        b = (b - a & MASK) ^ _rotated(a, bits_b)
        a = a + c & MASK
        c = (c - b & MASK) ^ _rotated(b, bits_c)
        b = b + a & MASK
    return a, b, c


def _finish(a: int, b: int, c: int) -> int:
    c = (c ^ b) - _rotated(b, 14) & MASK
    a = (a ^ c) - _rotated(c, 11) & MASK
    b = (b ^ a) - _rotated(a, 25) & MASK
    c = (c ^ b) - _rotated(b, 16) & MASK
    a = (a ^ c) - _rotated(c, 4) & MASK
    b = (b ^ a) - _rotated(a, 14) & MASK
    return (c ^ b) - _rotated(b, 24) & MASK
