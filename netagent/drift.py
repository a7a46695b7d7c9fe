"""What a notification of the kernel means to us: nothing, nearly always.

Pure. A notification is compared with what is desired: so the echo of our own change, and whatever others do with what
is theirs, falls out by itself. A message of others is looked at no further than to see that.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from netagent.instance import FIRST
from netagent.messages import (
    AF_BRIDGE,
    IFADDRMSG,
    IFF_UP,
    IFINFOMSG,
    NDA_DST,
    NDA_LLADDR,
    NDMSG,
    ROUTE_KINDS,
    RT_TABLE_MAIN,
    RTM_DELADDR,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RTMSG,
    Message,
    address_of,
    attributes,
    decode_address,
    decode_neighbor,
    decode_route,
    integer,
)
from netagent.state import FdbEntry, Key, Neighbor, Object, OverlayState

RTM_DELLINK = 17
IFLA_IFNAME, IFLA_MTU = 3, 4


@dataclass(frozen=True, slots=True)
class Drift:
    """Something that is not as it should be, or is so again."""

    key: Key | None = None
    """The object, when it is one."""
    actual: Object | None = None
    """What stands in its place; None: nothing."""
    settled: bool = False
    """The object is as it should be, whatever was said before: we change a device in several steps."""
    everything: bool = False
    """More may be missing than anybody said: the kernel drops what stands on a device or an address in silence."""
    underlay: bool = False
    """The interface below the overlay is another one than it was, or has other addresses."""


DecodeLink = Callable[[bytes], Object | None]


class Judge:
    def __init__(
        self,
        desired: Callable[[], OverlayState],
        underlay: Callable[[], Collection[str]],
        decode_link: DecodeLink,
        names: Mapping[int, str],
        protocol: int = FIRST.protocol,
    ) -> None:
        """`names`: all interfaces by index as they are now; later ones are learned from what is judged. `protocol`
        marks our routes.
        """
        self._protocol = protocol
        self._desired = desired
        self._underlay = underlay
        self._decode_link = decode_link
        self._names = dict(names)
        self._below: dict[str, tuple[int, bool, int]] = {}
        self._looks = {
            RTM_NEWLINK: self._link,
            RTM_DELLINK: self._link,
            RTM_NEWADDR: self._address,
            RTM_DELADDR: self._address,
            RTM_NEWROUTE: self._route,
            RTM_DELROUTE: self._route,
            RTM_NEWNEIGH: self._neighbor,
            RTM_DELNEIGH: self._neighbor,
        }

    def judge(self, message: Message) -> Drift | None:
        look = self._looks.get(message.kind)
        return look(message) if look else None

    def _is_ours(self, device: str) -> bool:
        return Key("link", device) in self._desired()

    def _link(self, message: Message) -> Drift | None:
        af, _, index, flags, _ = IFINFOMSG.unpack_from(message.payload)
        if af:
            return None  # what a bridge says about its ports
        found = attributes(message.payload, IFINFOMSG.size)
        name = found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
        gone = message.kind == RTM_DELLINK
        before = self._names.pop(index, "")
        if not gone:
            self._names[index] = name
        if name in self._underlay():
            shape = (0, False, 0) if gone else (index, bool(flags & IFF_UP), integer(found.get(IFLA_MTU)))
            return self._underlay_link(name, shape)
        # A renamed device of ours is missing under its name.
        if before != name and self._is_ours(before):
            return Drift(key=Key("link", before), everything=True)
        return self._own_link(name, None if gone else message.payload)

    def _underlay_link(self, name: str, shape: tuple[int, bool, int]) -> Drift | None:
        before, self._below[name] = self._below.get(name), shape
        # Routes that leave by it are gone when it was down, and with the interface our device.
        return None if shape == before else Drift(everything=True, underlay=True)

    def _own_link(self, name: str, payload: bytes | None) -> Drift | None:
        key = Key("link", name)
        desired = self._desired().get(key)
        if desired is None:
            return None
        actual = None if payload is None else self._decode_link(payload)
        if actual == desired:
            return Drift(key, settled=True)
        # Only one that is up, and stays the device it is, kept what stands on it.
        return Drift(key, actual, everything=actual is None or not getattr(actual, "up", False))

    def _address(self, message: Message) -> Drift | None:
        name = self._names.get(IFADDRMSG.unpack_from(message.payload)[4], "")
        if name in self._underlay():
            return Drift(underlay=True)
        if not self._is_ours(name):
            return None
        address = decode_address(message.payload, self._names)
        if address is None:
            return None
        if message.kind == RTM_DELADDR:
            # With the last address of a family go all routes of the device.
            return Drift(address.key, everything=True) if address.key in self._desired() else None
        return Drift(address.key, address, settled=self._desired().get(address.key) == address)

    def _route(self, message: Message) -> Drift | None:
        _, _, _, _, table, protocol, _, kind, _ = RTMSG.unpack_from(message.payload)
        if table != RT_TABLE_MAIN or kind not in ROUTE_KINDS:
            return None
        route = decode_route(message.payload, self._names)
        if route is None:
            return None
        desired = self._desired().get(route.key)
        if message.kind == RTM_DELROUTE:
            # A foreign route that stood in the place of ours leaves it free.
            return Drift(route.key) if desired is not None else None
        if route == desired:
            return Drift(route.key, settled=True)
        if desired is None and protocol != self._protocol:
            return None
        return Drift(route.key, route) if protocol == self._protocol else Drift(route.key, everything=True)

    def _neighbor(self, message: Message) -> Drift | None:
        af, index, _, _, _ = NDMSG.unpack_from(message.payload)
        name = self._names.get(index, "")
        if not self._is_ours(name):
            return None
        actual = decode_neighbor(message.payload, self._names) if message.kind == RTM_NEWNEIGH else None
        key = actual.key if actual else neighbor_key(message.payload, af, name)
        if key is None:
            return None
        desired = self._desired().get(key)
        if self._is_a_leftover(message, desired):
            return None
        return Drift(key, actual, settled=actual == desired)

    @staticmethod
    def _is_a_leftover(message: Message, desired: Object | None) -> bool:
        """One of several destinations behind a MAC went, and not the one that is desired."""
        if not isinstance(desired, FdbEntry) or message.kind != RTM_DELNEIGH:
            return False
        destination = address_of(attributes(message.payload, NDMSG.size).get(NDA_DST))
        return destination is not None and destination != desired.destination


def neighbor_key(payload: bytes, af: int, device: str) -> Key | None:
    """Whose entry it is, also when the kernel has emptied it already."""
    found = attributes(payload, NDMSG.size)
    address, mac = address_of(found.get(NDA_DST)), found.get(NDA_LLADDR)
    if af == AF_BRIDGE:
        return FdbEntry(mac.hex(":"), address, device).key if mac and address else None
    return Neighbor(address, "", device).key if address else None
