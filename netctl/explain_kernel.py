"""What `netctl explain` asks the kernel: rules, elements of sets, routes. The only file of it with effects but for
`verify.py`. Needs CAP_NET_ADMIN, as nft and iptables do.
"""

import errno
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

import msgspec

from controlloop.command import CommandError, clean_environment, find
from controlloop.family import Family, IPAddress
from controlloop.nft.elements import UnknownTypeError
from controlloop.nft.notifications import messages
from netagent.link_messages import decode_link
from netagent.messages import (
    AF_BRIDGE,
    IFINFOMSG,
    NDA_DST,
    NDA_LLADDR,
    NDMSG,
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
    index_attribute,
    integer,
    mac_bytes,
)
from netagent.netlink import Channel
from netagent.state import Link
from netctl.nft_requests import DONE, ERROR, element_request, element_value, table_listing, table_name
from netctl.walk import RouteAnswer, Ruleset, Unsure
from netctl.walk_iptables import PRIORITIES, IptablesRules
from netctl.walk_nftables import nft_tables
from proxy.iptables.address_sets import AddressSets

NETLINK_NETFILTER = 12
DATAGRAM = 64 * 1024
TIMEOUT_S = 10.0
RTA_SRC, RTA_IIF, RTA_PREFSRC, RTA_METRICS, RTA_MARK, RTAX_MTU = 2, 3, 7, 8, 16, 2
RTM_F_FIB_MATCH = 0x2000
KINDS = {1: "unicast", 2: "local", 3: "broadcast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
REFUSALS = {errno.EINVAL: "blackhole", errno.EACCES: "prohibit", errno.EHOSTUNREACH: "unreachable"}
"""What a lookup fails with (net/ipv4/fib_semantics.c, fib_props); everything else is no route."""
RECENT = Path("/proc/thread-self/net/xt_recent")


class KernelSight:
    """A netctl.walk.Sight on the network namespace of the calling thread."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._routes = Channel()
        self._netfilter = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._netfilter.settimeout(TIMEOUT_S)
        self._netfilter.bind((0, 0))
        self.route = lru_cache(maxsize=None)(self._route)

    # -- routes and what they lead over ---------------------------------------------------------------------------

    def _route(self, to: IPAddress, source: IPAddress | None = None, came_in: str = "", mark: int = 0) -> RouteAnswer:
        bits = self._family.bits
        request = RTMSG.pack(self._family.af, bits, bits if source else 0, 0, 0, 0, 0, 0, 0)
        request += attribute(RTA_DST, to.packed)
        if source:
            request += attribute(RTA_SRC, source.packed)
        if came_in:
            request += index_attribute(RTA_IIF, self._routes.index_of(came_in))
        if mark:
            request += index_attribute(RTA_MARK, mark)
        try:
            answer = self._routes.ask(RTM_GETROUTE, request)
        except OSError as error:
            return RouteAnswer(REFUSALS.get(error.errno or 0, "none"))
        return self._answer(answer)

    def _answer(self, payload: bytes) -> RouteAnswer:
        _, length, _, _, _, _, _, kind, _ = RTMSG.unpack_from(payload)
        found = attributes(payload, RTMSG.size)
        destination = address_of(found.get(RTA_DST))
        metrics = attributes(found.get(RTA_METRICS, b""), 0)
        return RouteAnswer(
            KINDS.get(kind, "none"),
            self.name_of(integer(found.get(RTA_OIF))),
            address_of(found.get(RTA_GATEWAY)),
            address_of(found.get(RTA_PREFSRC)),
            f"{destination}/{length}" if destination else "default",
            integer(metrics.get(RTAX_MTU)),
        )

    def matched(self, to: IPAddress) -> RouteAnswer:
        """The route itself that leads to an address, with its prefix."""
        request = RTMSG.pack(self._family.af, self._family.bits, 0, 0, 0, 0, 0, 0, RTM_F_FIB_MATCH)
        try:
            return self._answer(self._routes.ask(RTM_GETROUTE, request + attribute(RTA_DST, to.packed)))
        except OSError as error:
            return RouteAnswer(REFUSALS.get(error.errno or 0, "none"))

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

    def link(self, device: str) -> tuple[Link | None, int]:
        """The device, if it is of a kind that an overlay has, and its MTU."""
        payload = self._routes.ask(RTM_GETLINK, IFINFOMSG.pack(0, 0, self._routes.index_of(device), 0, 0))
        return decode_link(payload, self.name_of), integer(attributes(payload, IFINFOMSG.size).get(4))

    @staticmethod
    def name_of(index: int) -> str:
        with suppress(OSError):
            return socket.if_indextoname(index) if index else ""
        return ""

    # -- sets -----------------------------------------------------------------------------------------------------

    def element(self, table: str, container: str, kind: str, key: str) -> str | None:
        family, name = table.split(" ", 1)
        af = {"ip": Family.V4.af, "ip6": Family.V6.af, "inet": 1}[family]
        try:
            request = element_request(af, name, container, kind, key)
            answers = list(self._ask(request))
            return element_value(answers[0], kind) if answers else None
        except UnknownTypeError as error:
            raise Unsure(f"the set {container} of type {error}") from None

    def _ask(self, request: bytes) -> Iterator[bytes]:
        """Attributes of each object; nothing for what is not there."""
        self._netfilter.send(request)
        while True:
            datagram = self._netfilter.recv(DATAGRAM)
            yield from (message.payload for message in messages(datagram))
            kind, flags = int.from_bytes(datagram[4:6], "little"), int.from_bytes(datagram[6:8], "little")
            if kind == ERROR:
                code = -int.from_bytes(datagram[16:20], "little", signed=True)
                if code not in (0, errno.ENOENT):
                    raise OSError(code, os.strerror(code))
                return
            if kind == DONE or not flags & 2 or datagram[-20 + 4 : -20 + 6] == bytes([DONE, 0]):
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

    # -- rules ----------------------------------------------------------------------------------------------------

    def rulesets(self) -> list[Ruleset]:
        """All rules that a packet of the family may meet, as far as they are asked for."""
        native = {family: self._tables(family) for family in (self._family.nft, "inet")}
        through_nft = self._iptables_nft(native[self._family.nft])
        rules: list[Ruleset] = []
        if through_nft:
            rules.append(self._iptables("nft", through_nft))
            native[self._family.nft] -= through_nft
        if legacy := self._legacy_tables():
            rules.append(self._iptables("legacy", legacy))
        for family, tables in native.items():
            rules += self._nftables(family, tables, single=bool(through_nft))
        return rules

    def _tables(self, family: str) -> set[str]:
        af = {"ip": Family.V4.af, "ip6": Family.V6.af, "inet": 1}[family]
        return {table_name(payload) for payload in self._ask(table_listing(af))}

    def _nftables(self, family: str, tables: set[str], *, single: bool) -> Iterator[Ruleset]:
        """All at once where that is cheap: with one table, nft 1.0.6 reads all elements in it, too."""
        if not tables:
            return
        what = [["table", family, name] for name in sorted(tables)] if single else [["ruleset", family]]
        for words in what:
            listing = _output(["nft", "--json", "--terse", "list", *words])
            entries = msgspec.json.decode(listing)["nftables"]
            yield from (table for table in nft_tables(entries, frozenset({family}), self)
                        if table.name.split(" ", 1)[1] in tables)  # fmt: skip

    def _iptables_nft(self, tables: set[str]) -> set[str]:
        """Those that iptables-nft made. Others may have the same names, and then it says so."""
        return {name for name in tables & PRIORITIES.keys() if self._list_chain("nft", name, "OUTPUT")}

    def _legacy_tables(self) -> set[str]:
        family = "ip" if self._family is Family.V4 else "ip6"
        try:
            return set(Path(f"/proc/thread-self/net/{family}_tables_names").read_text().split())
        except OSError:
            return set()

    def _iptables(self, variant: str, tables: set[str]) -> IptablesRules:
        name = f"{'' if self._family is Family.V4 else 'ip6 '}{variant}"
        if variant == "nft":

            def chains(table: str, chain: str) -> Sequence[str]:
                return self._list_chain("nft", table, chain)
        else:
            saved = LegacyTables(_program(self._family, "legacy", "save"))
            chains = saved.chain
        return IptablesRules(self._family, tables, chains, self, f"iptables-{name}")

    def _list_chain(self, variant: str, table: str, chain: str) -> list[str]:
        try:
            return _output([_program(self._family, variant), "-t", table, "-S", chain]).decode().splitlines()
        except CommandError:
            return []


class LegacyTables:
    """Each table is read once: it takes as long as one chain of it."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._chains: dict[str, dict[str, list[str]]] = {}

    def chain(self, table: str, chain: str) -> Sequence[str]:
        if table not in self._chains:
            self._chains[table] = by_chain(_output([self._program, "-t", table]).decode(errors="replace"))
        return self._chains[table].get(chain, [])


def by_chain(text: str) -> dict[str, list[str]]:
    """The lines of iptables-save as `iptables -S` has them."""
    chains: dict[str, list[str]] = {}
    for line in text.split("\n"):
        if line.startswith("-A "):
            chains.setdefault(line[3 : line.index(" ", 3)], []).append(line)
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            chains.setdefault(name, []).append(f"-P {name} {policy}" if policy != "-" else f"-N {name}")
    return chains


def _program(family: Family, variant: str, action: str = "") -> str:
    base = "iptables" if family is Family.V4 else "ip6tables"
    return "-".join(filter(None, (base, variant, action)))


def _output(argv: Sequence[str]) -> bytes:
    """CommandError when it fails."""
    done = subprocess.run([find(argv[0]), *argv[1:]], capture_output=True, check=False, env=clean_environment())
    if done.returncode:
        raise CommandError(argv, done.returncode, done.stderr.decode(errors="replace"))
    return done.stdout
