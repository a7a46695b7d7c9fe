"""Which way a packet takes behind the rules: route, neighbor, FDB entry, peer, MTU. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any, Protocol

from controlloop.family import IPAddress
from netctl.explain.walk import RouteAnswer

VXLAN, IPIP, WIREGUARD = "vxlan", "ipip", "wireguard"
KINDS: Mapping[str, str] = {VXLAN: VXLAN, IPIP: IPIP, WIREGUARD: WIREGUARD, "tun": WIREGUARD}
"""Devices of overlays, by what the kernel calls them: wireguard-go has TUN devices."""


class PathSight(Protocol):
    def matched(self, to: IPAddress) -> RouteAnswer: ...

    def neighbor(self, device: str, address: IPAddress) -> str: ...

    def tunnel_end(self, device: str, mac: str) -> IPAddress | None: ...

    def link(self, device: str) -> tuple[str, int]:
        """One of the values of KINDS, or nothing, and the MTU."""
        ...


@dataclass(frozen=True, slots=True)
class Hop:
    """Where packets to one address go. Empty and None: there is none, or none is needed."""

    route: str
    device: str = ""
    kind: str = ""
    """Of the device, when an overlay has it: `vxlan`."""
    gateway: IPAddress | None = None
    mac: str = ""
    tunnel_end: IPAddress | None = None
    peer: str = ""
    mtu: int = 0
    problem: str = ""
    doubt: str = ""
    """What may keep it from arriving behind this node."""

    def document(self) -> dict[str, Any]:
        return {
            "route": self.route,
            "device": self.device or None,
            "kind": self.kind or None,
            "gateway": str(self.gateway) if self.gateway else None,
            "neighbor": self.mac or None,
            "fdb": str(self.tunnel_end) if self.tunnel_end else None,
            "peer": self.peer or None,
            "mtu": self.mtu or None,
            "problem": self.problem or None,
        }

    @property
    def text(self) -> str:
        """In a few words."""
        if self.problem or not self.device:
            return self.problem or self.route
        over = f" to {self.tunnel_end}" if self.tunnel_end else f" via {self.gateway}" if self.gateway else ""
        return f"{self.device}{over}{f' ({self.peer})' if self.peer else ''}, mtu {self.mtu}"


def hop(to: IPAddress, route: RouteAnswer | None, sight: PathSight, peers: Sequence[Mapping[str, Any]]) -> Hop:
    """`route` is what was decided for this packet; `peers` as the agent lists them, empty when it does not answer."""
    if route is not None and route.kind == "broadcast":
        return Hop("broadcast", route.device, mtu=sight.link(route.device)[1])
    if route is None or route.kind not in ("unicast", "local"):
        return Hop(f"{route.kind} route" if route else "none", problem="no way there")
    if route.kind == "local":
        return Hop("local: this node", "lo", mtu=sight.link("lo")[1])
    kind, mtu = sight.link(route.device)
    text = f"{sight.matched(to).prefix}{f' via {route.gateway}' if route.gateway else ''} dev {route.device}"
    next_hop = route.gateway or to
    mac = sight.neighbor(route.device, next_hop) if kind not in (IPIP, WIREGUARD) else ""
    end = sight.tunnel_end(route.device, mac) if kind == VXLAN and mac else None
    if kind == IPIP:
        end = route.gateway
    peer = peer_at(end or next_hop, to, peers)
    name, doubt = (str(peer["key"]), doubt_of(peer, kind, str(end or next_hop))) if peer else ("", "")
    known = Hop(text, route.device, kind, route.gateway, mac, end, name, route.mtu or mtu, doubt=doubt)
    return with_problem(known) if kind == VXLAN else known


def with_problem(found: Hop) -> Hop:
    """A VXLAN device asks nobody: without these entries its packets are lost."""
    missing = "neighbor entry" if not found.mac else "FDB entry" if found.tunnel_end is None else ""
    return replace(found, problem=f"{found.device} has no {missing} for {found.gateway}") if missing else found


def peer_at(end: IPAddress, to: IPAddress, peers: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The peer that has the pods' subnet, or is itself the other end."""
    for peer in peers:
        if str(end) in peer["public_ips"] or any(to in ip_network(subnet) for subnet in peer["subnets"]):
            return peer
    return None


def doubt_of(peer: Mapping[str, Any], kind: str, next_hop: str) -> str:
    """What the agent knows of this peer, or the way there, that no rule of this node tells."""
    name = peer["key"]
    if not kind and next_hop not in peer["public_ips"] and peer["backend"] != "alloc":
        return f"peer {name} has a lease for it, but no route of the overlay leads there: `netctl diff` (NN110)"
    if peer["lost_since"]:
        return f"peer {name} does not answer probes any more: `netctl check net` (NN104)"
    if peer["large_lost_since"]:
        return f"large packets do not arrive at peer {name}: `netctl check net` (NN105)"
    return ""
