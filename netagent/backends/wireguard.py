"""wireguard: encrypted; one route for the whole overlay, and the peers' keys decide who gets a packet. Pure.

In `separate` mode each family has a device whose tunnels go over that family; else one device carries both, and the
mode says over which family its tunnels go (flannel).
"""

import base64
import binascii
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from controlloop.errors import OperatorError
from controlloop.family import Family, IPAddress
from netagent.backends.backend import Node, where_to_send
from netagent.backends.options import inner_mtu, number, text
from netagent.state import METRIC, LinkAddress, Object, Route, WireguardIdentity, WireguardLink, WireguardPeer
from subnet_alloc.codec import option
from subnet_alloc.model import Lease

# Outer IPv6, UDP and WireGuard's own header and tag; with IPv4 outside 20 are left over (flannel takes 80 for both).
OVERHEAD = 80

DEVICE = {Family.V4: "flannel-wg", Family.V6: "flannel-wg-v6"}
PORT = {Family.V4: 51820, Family.V6: 51821}
KEEPALIVE_LIMIT_S = 65535  # wg(8)


class Mode(Enum):
    SEPARATE = "separate"
    AUTO = "auto"
    IPV4 = "ipv4"
    IPV6 = "ipv6"


@dataclass(frozen=True, slots=True)
class Wireguard:
    port: int = PORT[Family.V4]
    port_v6: int = PORT[Family.V6]
    mtu: int = 0
    """MTU of the underlay, headers included; 0: what the interface has."""
    psk: str = field(default="", repr=False)
    keepalive_s: int = 0
    mode: Mode = Mode.SEPARATE
    public_key: str = ""
    """Ours; the private one is in `key_file` and nowhere in this program."""
    key_file: str = ""

    @property
    def type(self) -> str:
        return "wireguard"

    def check(self, node: Node) -> None:
        self.pod_mtu(node)
        wanted = {Mode.IPV4: Family.V4, Mode.IPV6: Family.V6}.get(self.mode)
        if wanted and wanted not in node.underlay:
            raise OperatorError(f"Backend.Mode {self.mode.value}: the network has no IPv{wanted.value}")

    def device(self, family: Family) -> str:
        return DEVICE[family] if self.mode is Mode.SEPARATE else DEVICE[Family.V4]

    def devices(self, families: Iterable[Family]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.device(family) for family in families))

    def listen_port(self, family: Family) -> int:
        return self.port_v6 if self.mode is Mode.SEPARATE and family is Family.V6 else self.port

    def pod_mtu(self, node: Node) -> int:
        interface = min(underlay.mtu for underlay in node.underlay.values())
        outer = min(self.mtu or interface, interface)
        return min(inner_mtu(outer, OVERHEAD, family) for family in node.underlay)

    def lease_data(self, node: Node) -> dict[Family, dict[str, Any]]:
        return {family: {"PublicKey": self.public_key, "Port": self.listen_port(family)} for family in node.underlay}

    def own_objects(self, node: Node, own: Lease) -> list[Object]:
        return [each for family, subnet in own.subnets.items() for each in self._own_objects(node, family, subnet[0])]

    def _own_objects(self, node: Node, family: Family, address: IPAddress) -> list[Object]:
        device = self.device(family)
        return [
            WireguardLink(device, self.pod_mtu(node)),
            WireguardIdentity(device, self.public_key, self.listen_port(family), self.key_file),
            LinkAddress(address, family.bits, device),
            Route(node.networks[family], None, device, onlink=False, metric=METRIC[family]),
        ]

    def peer_objects(self, _node: Node, peer: Lease, families: Collection[Family]) -> list[Object]:
        if self.mode is Mode.SEPARATE:
            peers = [self._peer(peer, family, [family]) for family in families]
        else:
            peers = [self._peer(peer, self._tunnel_family(peer), families)] if families else []
        return [*peers, *(subnet for each in peers for subnet in each.subnets)]

    def _tunnel_family(self, peer: Lease) -> Family:
        if self.mode in {Mode.IPV4, Mode.IPV6}:
            return Family.V4 if self.mode is Mode.IPV4 else Family.V6
        known = [family for family in Family if family in peer.attrs.public_ip]
        public = [family for family in known if peer.attrs.public_ip[family].is_global]
        return next(iter([*public, *known, Family.V4]))

    def _peer(self, peer: Lease, tunnel: Family, families: Collection[Family]) -> WireguardPeer:
        data = peer.attrs.backend_data.get(tunnel) or next(iter(peer.attrs.backend_data.values()), None)
        public_key, port = identity_of(data, self.listen_port(tunnel))
        if public_key == self.public_key:
            raise ValueError(f"PublicKey {public_key} is ours")
        return WireguardPeer(
            public_key=public_key,
            endpoint=(where_to_send(peer, tunnel), port),
            allowed=frozenset(peer.subnets[family] for family in families),
            device=self.device(tunnel),
            keepalive_s=self.keepalive_s,
            preshared_key=self.psk,
        )


def parse_wireguard(options: Mapping[str, Any]) -> Wireguard:
    mode, psk = text(options, "Mode") or Mode.SEPARATE.value, text(options, "PSK")
    if mode not in {each.value for each in Mode}:
        raise OperatorError(f"Backend.Mode {mode!r}: use one of {', '.join(each.value for each in Mode)}")
    if psk and not is_key(psk):
        raise OperatorError("Backend.PSK: not 32 bytes in base64, as `wg genpsk` makes them")
    return Wireguard(
        port=number(options, "ListenPort", default=0, limit=65535) or PORT[Family.V4],
        port_v6=number(options, "ListenPortV6", default=0, limit=65535) or PORT[Family.V6],
        mtu=number(options, "MTU", default=0, limit=65535),
        psk=psk,
        keepalive_s=number(options, "PersistentKeepaliveInterval", default=0, limit=KEEPALIVE_LIMIT_S),
        mode=Mode(mode),
    )


def is_key(value: object) -> bool:
    try:
        return isinstance(value, str) and len(value) == 44 and len(base64.b64decode(value, validate=True)) == 32
    except binascii.Error:
        return False


def identity_of(backend_data: object, default_port: int) -> tuple[str, int]:
    """Public key and port in a peer's lease; flannels before 0.20 write no port. ValueError says what is wrong."""
    if not isinstance(backend_data, Mapping):
        raise ValueError("no PublicKey")  # noqa: TRY004 - the fault is in a lease's value, not in our call
    public_key, port = option(backend_data, "PublicKey"), option(backend_data, "Port")
    if not is_key(public_key):
        raise ValueError(f"PublicKey {public_key!r}: not 32 bytes in base64")
    port = port or default_port
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port <= 65535:
        raise ValueError(f"Port {port!r}: not a port")
    return public_key, port
