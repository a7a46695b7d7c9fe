"""WireGuard devices through the `wg` tool, which speaks to the kernel's driver and to wireguard-go alike.

No key is ever in an argument list, where every user of the machine could read it: they go through files and stdin.
"""

from collections.abc import Sequence
from dataclasses import replace

from controlloop.command import CommandError, run
from controlloop.logs import Log
from netagent.backends.wg_text import parse_dump, render_peers
from netagent.state import Key, Object, WireguardIdentity, WireguardPeer

log = Log("netagent")

# A key takes 45 bytes in an argument list; the system allows two million.
REMOVED_AT_ONCE = 1000


class WireguardTool:
    def __init__(self) -> None:
        self._known: dict[Key, WireguardPeer] = {}

    async def dump(self, device: str) -> dict[Key, Object]:
        """What `wg` shows of a device; nothing of one that it cannot speak to, be it only to be removed."""
        try:
            shown = parse_dump(device, (await run(["wg", "show", device, "dump"])).decode())
        except CommandError as error:
            log.debug("wireguard not readable", device=device, error=error)
            return {}
        peers = [self._as_first_known(peer, proven=peer.key in shown.proven) for peer in shown.peers]
        found: list[Object] = [shown.identity, *peers, *(subnet for peer in peers for subnet in peer.subnets)]
        return {each.key: each for each in found}

    def _as_first_known(self, peer: WireguardPeer, *, proven: bool) -> WireguardPeer:
        """A peer that proves its key from elsewhere, for example behind NAT, moves its endpoint itself."""
        known = self._known.setdefault(peer.key, peer)
        return replace(peer, endpoint=known.endpoint) if proven else peer

    async def identify(self, identity: WireguardIdentity) -> None:
        """CommandError when `wg` refuses."""
        listen = ["listen-port", str(identity.port), "private-key", identity.key_file]
        await run(["wg", "set", identity.device, *listen])

    async def put(self, device: str, peers: Sequence[WireguardPeer]) -> None:
        """CommandError when `wg` refuses."""
        await run(["wg", "addconf", device, "/dev/stdin"], render_peers(peers).encode())
        self._known |= {peer.key: peer for peer in peers}

    async def remove(self, device: str, peers: Sequence[WireguardPeer]) -> None:
        """CommandError when `wg` refuses; a peer that is already gone counts as removed."""
        for start in range(0, len(peers), REMOVED_AT_ONCE):
            some = peers[start : start + REMOVED_AT_ONCE]
            await run(["wg", "set", device, *(word for peer in some for word in ("peer", peer.public_key, "remove"))])
        for peer in peers:
            self._known.pop(peer.key, None)
