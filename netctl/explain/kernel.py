"""What `netctl explain` asks the kernel on the way: elements of sets, routes and what they lead over.

Needs CAP_NET_ADMIN, as nft and iptables do.
"""

import errno
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec

from controlloop.command import CommandError, clean_environment, find
from controlloop.family import Family, IPAddress
from controlloop.nft.elements import UnknownTypeError
from controlloop.nft.notifications import GENERIC_HEADER
from netagent.link_messages import IFLA_MTU
from netagent.messages import (
    AF_BRIDGE,
    IFINFOMSG,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    NDA_DST,
    NDA_LLADDR,
    NDMSG,
    NLMSG_DONE,
    NLMSG_ERROR,
    NTF_SELF,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTM_GETLINK,
    RTM_GETNEIGH,
    RTM_GETROUTE,
    RTMSG,
    address_of,
    attribute,
    attributes,
    error_of,
    index_attribute,
    integer,
    mac_bytes,
    messages,
    text_of,
)
from netagent.netlink import Channel
from netctl.explain.iptables_shapes import RuleShape, rule_listing, rule_shape
from netctl.explain.nft_requests import (
    NamedChain,
    base_chain,
    chain_listing,
    element_request,
    element_value,
    table_listing,
    table_name,
)
from netctl.explain.walk import RouteAnswer, Unsure
from netctl.explain.walk_overlay import KINDS
from proxy.iptables.address_sets import AddressSets

NETLINK_NETFILTER = 12
NLM_F_MULTI = 2
DATAGRAM = 64 * 1024
TIMEOUT_S = 10.0

AF = {"ip": Family.V4.af, "ip6": Family.V6.af, "inet": 1}
"""nft's families; the last one is NFPROTO_INET (linux/netfilter.h)."""
RTA_SRC, RTA_IIF, RTA_PREFSRC, RTA_METRICS, RTA_MARK, RTAX_MTU = 2, 3, 7, 8, 16, 2
RTM_F_FIB_MATCH = 0x2000
ROUTES = {1: "unicast", 2: "local", 3: "broadcast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
REFUSALS = {errno.EINVAL: "blackhole", errno.EACCES: "prohibit", errno.EHOSTUNREACH: "unreachable"}
"""What a lookup fails with (net/ipv4/fib_semantics.c, fib_props); everything else is no route."""
SETTINGS = Path("/proc/sys/net")
RECENT = Path("/proc/thread-self/net/xt_recent")


class KernelSight:
    """A netctl.walk.Sight, and a netctl.walk_overlay.PathSight, on the network namespace of the calling thread."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._routes = Channel()
        self._netfilter = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._netfilter.settimeout(TIMEOUT_S)
        self._netfilter.bind((0, 0))
        self._answers: dict[tuple[IPAddress, IPAddress | None, str, int], RouteAnswer] = {}

    def close(self) -> None:
        self._routes.close()
        self._netfilter.close()

    # -- routes and what they lead over ---------------------------------------------------------------------------

    def route(self, to: IPAddress, source: IPAddress | None = None, came_in: str = "", mark: int = 0) -> RouteAnswer:
        key = to, source, came_in, mark
        if key not in self._answers:
            self._answers[key] = self._looked_up(to, source, came_in, mark)
        return self._answers[key]

    def _looked_up(self, to: IPAddress, source: IPAddress | None, came_in: str, mark: int) -> RouteAnswer:
        bits = self._family.bits
        request = RTMSG.pack(self._family.af, bits, bits if source else 0, 0, 0, 0, 0, 0, 0)
        request += attribute(RTA_DST, to.packed)
        if source:
            request += attribute(RTA_SRC, source.packed)
        if came_in:
            request += index_attribute(RTA_IIF, self._routes.index_of(came_in))
        if mark:
            request += index_attribute(RTA_MARK, mark)
        found = self._answer(request)
        # To the lookup of IPv4 this is an unreachable route, too; that of IPv6 does not ask, but ip6_forward does.
        hides_it = found.kind == ("unreachable" if self._family is Family.V4 else "unicast")
        is_forbidden = hides_it and came_in and forbidding(self._family, came_in)
        return RouteAnswer("no-forwarding") if is_forbidden else found

    def matched(self, to: IPAddress) -> RouteAnswer:
        """The route itself that leads to an address, with its prefix."""
        request = RTMSG.pack(self._family.af, self._family.bits, 0, 0, 0, 0, 0, 0, RTM_F_FIB_MATCH)
        return self._answer(request + attribute(RTA_DST, to.packed))

    def _answer(self, request: bytes) -> RouteAnswer:
        try:
            payload = self._routes.ask(RTM_GETROUTE, request)
        except OSError as error:
            return RouteAnswer(REFUSALS.get(error.errno or 0, "none"))
        _, length, _, _, _, _, _, kind, _ = RTMSG.unpack_from(payload)
        found = attributes(payload, RTMSG.size)
        destination = address_of(found.get(RTA_DST))
        metrics = attributes(found.get(RTA_METRICS, b""), 0)
        return RouteAnswer(
            ROUTES.get(kind, "none"),
            name_of(integer(found.get(RTA_OIF))),
            address_of(found.get(RTA_GATEWAY)),
            address_of(found.get(RTA_PREFSRC)),
            f"{destination}/{length}" if destination else "default",
            integer(metrics.get(RTAX_MTU)),
        )

    def is_local(self, address: IPAddress) -> bool:
        return self.route(address).kind == "local"

    def neighbor(self, device: str, address: IPAddress) -> str:
        """Its MAC address; empty when the kernel has none."""
        request = NDMSG.pack(Family.of(address).af, self._routes.index_of(device), 0, 0, 0)
        return self._neighbor(request + attribute(NDA_DST, address.packed)).get(NDA_LLADDR, b"").hex(":")

    def tunnel_end(self, device: str, mac: str) -> IPAddress | None:
        """Where a VXLAN device sends frames for this MAC address."""
        request = NDMSG.pack(AF_BRIDGE, self._routes.index_of(device), 0, NTF_SELF, 0)
        return address_of(self._neighbor(request + attribute(NDA_LLADDR, mac_bytes(mac))).get(NDA_DST))

    def _neighbor(self, request: bytes) -> dict[int, bytes]:
        try:
            return attributes(self._routes.ask(RTM_GETNEIGH, request), NDMSG.size)
        except OSError:
            return {}

    def link(self, device: str) -> tuple[str, int]:
        """Its kind, if it is one that an overlay has, and its MTU."""
        payload = self._routes.ask(RTM_GETLINK, IFINFOMSG.pack(0, 0, self._routes.index_of(device), 0, 0))
        found = attributes(payload, IFINFOMSG.size)
        kind = text_of(attributes(found.get(IFLA_LINKINFO, b""), 0).get(IFLA_INFO_KIND))
        return KINDS.get(kind, ""), integer(found.get(IFLA_MTU))

    # -- tables and sets ------------------------------------------------------------------------------------------

    def nft_tables(self, family: str) -> set[str]:
        """Their names; `family` as nft calls it."""
        return {table_name(payload) for payload in self._ask(table_listing(AF[family]))}

    def base_chains(self, family: str) -> Iterator[NamedChain]:
        """Of all tables; nft takes half a second for that on a large node."""
        return filter(None, map(base_chain, self._ask(chain_listing(AF[family]))))

    def rule_shapes(self, table: str, chain: str) -> list[RuleShape]:
        """Of the rules of one chain, in their order; none where it is not there."""
        return [rule_shape(payload) for payload in self._ask(rule_listing(self._family.af, table, chain))]

    def element(self, table: str, container: str, kind: str, key: str) -> str | None:
        family, name = table.split(" ", 1)
        try:
            answers = list(self._ask(element_request(AF[family], name, container, kind, key)))
            return element_value(answers[0], kind) if answers else None
        except UnknownTypeError as error:
            raise Unsure(f"the set {container} of type {error}") from None

    def ranges(self, table: str, container: str) -> Sequence[Any]:
        family, name = table.split(" ", 1)
        try:
            listing = msgspec.json.decode(output(["nft", "--json", "list", "set", family, name, container]))
        except CommandError:
            raise Unsure(f"the map {container}, which holds ranges") from None
        ranges: Sequence[Any] = next(entry["set"] for entry in listing["nftables"] if "set" in entry).get("elem", ())
        return ranges

    def _ask(self, request: bytes) -> Iterator[bytes]:
        """Attributes of each object; nothing for what is not there."""
        self._netfilter.send(request)
        while True:
            for answer in messages(self._netfilter.recv(DATAGRAM)):
                if answer.kind == NLMSG_ERROR:
                    code, text = error_of(answer)
                    if code == errno.ENOENT:
                        return
                    raise OSError(code, text or os.strerror(code))
                if answer.kind != NLMSG_DONE:
                    yield answer.payload[GENERIC_HEADER:]
                if answer.kind == NLMSG_DONE or not answer.flags & NLM_F_MULTI:
                    return

    def in_ipset(self, name: str, address: IPAddress) -> bool | None:
        try:
            return AddressSets(self._family, "").contains(name, address)
        except OSError:
            return None

    def is_recent(self, name: str, address: IPAddress) -> bool | None:
        try:
            lines = (RECENT / name).read_text().splitlines()
        except OSError:
            return None
        return any(ip_address(line.split()[0].removeprefix("src=")) == address for line in lines)


def forbidding(family: Family, came_in: str) -> str:
    """The setting for which nothing that came in there goes on, as `net.ipv6.conf.all.forwarding=0`; empty: none.

    IPv4 asks the device. IPv6 asks the whole node, and since Linux 6.17 makes exceptions of devices.
    """
    devices = SETTINGS / f"ipv{family.value}" / "conf"
    asked = came_in if family is Family.V4 else "all"
    if is_set(devices / asked / "forwarding"):
        return ""
    with suppress(FileNotFoundError):
        if family is Family.V6 and is_set(devices / came_in / "force_forwarding"):
            return ""
    return f"net.ipv{family.value}.conf.{asked}.forwarding=0"


def is_set(setting: Path) -> bool:
    return setting.read_text().strip() != "0"


def name_of(index: int) -> str:
    with suppress(OSError):
        return socket.if_indextoname(index) if index else ""
    return ""


def output(argv: Sequence[str]) -> bytes:
    """CommandError when it fails."""
    done = subprocess.run([find(argv[0]), *argv[1:]], capture_output=True, check=False, env=clean_environment())
    if done.returncode:
        raise CommandError(argv, done.returncode, done.stderr.decode(errors="replace"))
    return done.stdout
