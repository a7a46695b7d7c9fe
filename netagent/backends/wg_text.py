"""What `wg` prints and reads (wg(8)). Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from controlloop.family import IPAddress
from netagent.state import Key, WireguardIdentity, WireguardPeer, endpoint_text

# A preshared key of zeros is none, to WireGuard itself.
NO_PRESHARED_KEY = "A" * 43 + "="


@dataclass(frozen=True, slots=True)
class Shown:
    identity: WireguardIdentity
    """Without a key as long as the device has none."""
    peers: tuple[WireguardPeer, ...]
    proven: frozenset[Key]
    """Those that shook hands."""


def parse_dump(device: str, text: str) -> Shown:
    """`wg show DEVICE dump`: a line for the device, one for each peer, fields between tabs."""
    first, *rest = [line.split("\t") for line in text.splitlines()]
    peers = [(peer_of(fields, device), fields[4] != "0") for fields in rest]
    return Shown(
        identity=WireguardIdentity(device, "" if first[1] == "(none)" else first[1], int(first[2])),
        peers=tuple(peer for peer, _ in peers),
        proven=frozenset(peer.key for peer, proven in peers if proven),
    )


def peer_of(fields: list[str], device: str) -> WireguardPeer:
    public_key, preshared_key, endpoint, allowed, *_, keepalive = fields
    return WireguardPeer(
        public_key=public_key,
        endpoint=parse_endpoint(endpoint),
        allowed=frozenset(ip_network(each) for each in allowed.split(",") if each != "(none)"),
        device=device,
        keepalive_s=0 if keepalive == "off" else int(keepalive),
        preshared_key="" if preshared_key in {"(none)", NO_PRESHARED_KEY} else preshared_key,
    )


def parse_endpoint(text: str) -> tuple[IPAddress, int] | None:
    if text == "(none)":
        return None
    address, _, port = text.rpartition(":")
    return ip_address(address.strip("[]")), int(port)


def render_peers(peers: Iterable[WireguardPeer]) -> str:
    """For `wg addconf`. A peer that is there already takes on each of these values."""
    return "\n".join(line for peer in peers for line in peer_lines(peer)) + "\n"


def peer_lines(peer: WireguardPeer) -> list[str]:
    return [
        "[Peer]",
        f"PublicKey = {peer.public_key}",
        f"PresharedKey = {peer.preshared_key or NO_PRESHARED_KEY}",
        f"AllowedIPs = {', '.join(sorted(map(str, peer.allowed)))}",
        *([f"Endpoint = {endpoint_text(peer.endpoint)}"] if peer.endpoint else []),
        f"PersistentKeepalive = {peer.keepalive_s or 'off'}",
    ]
