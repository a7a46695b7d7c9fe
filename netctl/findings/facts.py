"""Reads what `netctl check host` judges, from this host or from a bundle that was taken of one.

Nothing of the host is changed: features of the kernel are tried in a network namespace of their own, which goes with
the process. Needs root, as nft and iptables do.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import PurePath
from typing import Any

from controlloop.command import NOT_INSTALLED, CommandError
from netctl.actual.overlay import NEIGHBORS
from netctl.findings.host_facts import (
    Frontend,
    HostFacts,
    Table,
    foreign_tables,
    frontends_in_maps,
    frontends_in_rules,
    is_of_iptables,
    native_part,
    read_counters,
    read_settings,
    read_sockets,
    read_table,
)
from netctl.findings.neighbor_table import NeighborTable, read_neighbor_tables
from netctl.kernel import IPSETS
from netctl.node import Node

SYSCTL_FOLDER = "/proc/sys/net"
SYSCTLS = (
    "ipv4/ip_forward",
    "ipv6/conf/all/forwarding",
    "ipv4/conf/*/rp_filter",
    "ipv4/conf/*/route_localnet",
    "bridge/bridge-nf-call-ip*tables",
    "netfilter/nf_conntrack_count",
    "netfilter/nf_conntrack_max",
)
"""Patterns of files below that folder."""
SNMP = "/proc/net/snmp"
NETWORKD_RUNS = "/run/systemd/netif/state"
NETWORKD_FILE = "/etc/systemd/networkd.conf"
NETWORKD_DROP_INS = tuple(f"/{place}/systemd/networkd.conf.d/*.conf" for place in ("usr/lib", "run", "etc"))
"""Of files with one name that of the last folder counts."""
LINKS = ("ip", "-json", "-details", "link", "show")
SOCKETS = ("ss", "-H", "-l", "-n", "-t", "-u", "-p")
NEIGHBOR_TABLES = ("env", "TZ=UTC", "ip", "-json", "-s", "ntable", "show")
"""`ip` prints points of time as they are called here, which may be elsewhere than where a bundle is read."""
MAP_NAMES = ("services", "node-ports")
CHAINS = ("nft", "-j", "list", "chains")
MAPS = tuple(("nft", "-j", "list", "map", family, "netproxy", name) for family in ("ip", "ip6") for name in MAP_NAMES)
VERSIONS = (("nft", "--version"), ("iptables", "--version"), ("ip", "-V"), ("ss", "-V"))
"""How to ask whether a program is there."""
NATIVE = re.compile(r"# Table `(\w+)' (?:is incompatible|contains incompatible base-chains), use 'nft' tool")
"""What iptables-nft-save says of a table into which nft put what iptables cannot say: of all of it, or of a chain."""

ASIDE = ("unshare", "--net")
"""In a network namespace that goes with the program."""
NFT = (*ASIDE, "nft", "--check")
NAT = "type nat hook postrouting priority 100;"
NTH = ("statistic", "--mode", "nth", "--every", "2", "--packet", "0")
IPTABLES = (*ASIDE, "iptables", "-A", "INPUT", "-m")
MAY_TRY = (*ASIDE, "true")
TRIALS = {
    "nftables": (*NFT, "table ip probe { }"),
    "numgen in nftables": (*NFT, "table ip probe { chain c { numgen random mod 2 0 accept; }; }"),
    "jhash in nftables": (*NFT, "table ip probe { chain c { jhash ip saddr mod 2 0 accept; }; }"),
    "fib in nftables": (*NFT, "table ip probe { chain c { fib daddr type local accept; }; }"),
    "masquerade in nftables": (*NFT, f"table ip probe {{ chain c {{ {NAT} masquerade fully-random; }}; }}"),
    "VXLAN": (*ASIDE, "ip", "link", "add", "probe", "type", "vxlan", "id", "1", "dstport", "8472"),
    "statistic in iptables": (*IPTABLES, *NTH),
    "addrtype in iptables": (*IPTABLES, "addrtype", "--dst-type", "LOCAL"),
}
"""What the daemons need of the kernel: a command that works where it is there."""


@dataclass(slots=True)
class Reader:
    """Asks one by one, and remembers what could not be read: a check that was not made is no good news."""

    node: Node
    unread: list[str] = field(default_factory=list)

    def text(self, *argv: str) -> str | None:
        """None when it fails, and then noted."""
        try:
            return self.node.output(*argv).decode(errors="replace")
        except CommandError as error:
            self.unread.append(f"{' '.join(argv)}: {first_line(error.stderr)}")
            return None

    def file(self, path: str) -> str:
        """Empty when it is not there, and when it may not be read, which is noted."""
        try:
            return self.node.text(path)
        except FileNotFoundError:
            return ""
        except OSError as error:
            self.unread.append(f"{path}: {error.strerror}")
            return ""

    def document(self, *argv: str) -> Any:
        text = self.text(*argv)
        return json.loads(text) if text and text.strip() else {}

    def refusal(self, *argv: str) -> CommandError | None:
        """Why it fails; None when it does not."""
        try:
            self.node.output(*argv)
        except CommandError as error:
            return error
        return None


def first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "failed without a word")


def read_host(node: Node) -> tuple[HostFacts, list[str]]:
    """The facts, and what could not be read."""
    reader = Reader(node)
    missing = {argv[0] for argv in VERSIONS if is_missing(reader.refusal(*argv))}
    iptables = read_iptables(reader)
    tables = read_tables(reader, iptables) if "nft" not in missing else []
    udp = read_counters(reader.file(SNMP), "Udp")
    facts = HostFacts(
        sysctls=read_sysctls(node),
        links=reader.document(*LINKS) or [],
        refused=refusals(reader, missing),
        missing=sorted(missing),
        tables=tables,
        iptables=iptables,
        sockets=list(read_sockets(reader.text(*SOCKETS) or "")),
        frontends=read_frontends(node, iptables),
        datagrams=udp.get("InDatagrams", 0) + udp.get("InErrors", 0),
        wrong_checksums=udp.get("InCsumErrors", 0),
        neighbor_tables=read_neighbors(reader),
        networkd=read_networkd(reader),
    )
    return facts, reader.unread


def is_missing(refusal: CommandError | None) -> bool:
    return refusal is not None and refusal.returncode == NOT_INSTALLED


def read_sysctls(node: Node) -> dict[str, int]:
    texts = (node.texts(f"{SYSCTL_FOLDER}/{pattern}").items() for pattern in SYSCTLS)
    return {
        str(PurePath(path).relative_to(SYSCTL_FOLDER)): int(text)
        for path, text in chain.from_iterable(texts)
        if text.strip()
    }


def read_iptables(reader: Reader) -> dict[str, list[str]]:
    """Legacy ones only where they hold something: asking for them would make the kernel set the tables up."""
    found = {}
    for name, names in (("iptables", "ip_tables_names"), ("ip6tables", "ip6_tables_names")):
        legacy = ("legacy",) if reader.file(f"/proc/thread-self/net/{names}").split() else ()
        for variant in ("nft", *legacy):
            program = f"{name}-{variant}"
            unread = len(reader.unread)
            text = reader.text(f"{program}-save")
            if text is not None:
                found[program] = text.splitlines()
            elif is_missing(reader.refusal(f"{program}-save")):
                del reader.unread[unread:]
    return found


def read_tables(reader: Reader, iptables: dict[str, list[str]]) -> list[Table]:
    named = foreign_tables(reader.document(*CHAINS))
    found = sorted({*named, *with_native_rules(iptables)})
    return [read_foreign(reader, *table, iptables) for table in found]


def read_foreign(reader: Reader, family: str, name: str, iptables: Mapping[str, Sequence[str]]) -> Table:
    table = read_table(family, name, reader.document("nft", "-j", "-t", "list", "table", family, name))
    program = "ip6tables-nft" if family == "ip6" else "iptables-nft"
    is_shown = is_of_iptables(family, name) and f"*{name}" in iptables.get(program, ())
    return native_part(table) if is_shown else table


def with_native_rules(iptables: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Tables with the names of iptables into which nft put what iptables cannot say."""
    for program, lines in iptables.items():
        for said in filter(None, map(NATIVE.match, lines)):
            yield "ip6" if program.startswith("ip6") else "ip", said[1]


def read_frontends(node: Node, iptables: dict[str, list[str]]) -> list[Frontend]:
    """A map that is not there is no fault: the proxy may work in another mode, or not at all."""
    listings = []
    for argv in MAPS:
        with suppress(CommandError):
            listings.append(json.loads(node.output(*argv)))
    ruled = chain.from_iterable(map(frontends_in_rules, iptables.values()))
    return sorted({*frontends_in_maps(listings), *ruled})


def refusals(reader: Reader, missing: AbstractSet[str]) -> dict[str, str]:
    if reader.refusal(*MAY_TRY):
        reader.unread.append("features of the kernel: trying them needs root")
        return {}
    refusal = reader.node.kernel(IPSETS)
    found = {"sets of addresses (ipset)": refusal} if refusal else {}
    for feature, argv in TRIALS.items():
        if missing.isdisjoint(argv) and (error := reader.refusal(*argv)):
            found[feature] = first_line(error.stderr)
    return found


def read_neighbors(reader: Reader) -> list[NeighborTable]:
    neighbors = {family: reader.document(*argv) or [] for family, argv in NEIGHBORS.items()}
    return list(read_neighbor_tables(reader.document(*NEIGHBOR_TABLES), neighbors, reader.node.now))


def read_networkd(reader: Reader) -> dict[str, str] | None:
    """As systemd-networkd reads it: of files with one name that in the last folder counts, in the order of names."""
    try:
        reader.node.text(NETWORKD_RUNS)
    except OSError:
        return None
    drop_ins = chain.from_iterable(reader.node.texts(pattern).items() for pattern in NETWORKD_DROP_INS)
    by_name = {PurePath(path).name: text for path, text in drop_ins}
    return read_settings([reader.file(NETWORKD_FILE), *(by_name[name] for name in sorted(by_name))], "Network")


def route_mtu(node: Node, address: str) -> int:
    """The largest packet that leaves towards an address; 0 when there is no way."""
    try:
        routes = json.loads(node.output("ip", "-json", "route", "get", address) or b"[]")
        links = json.loads(node.output("ip", "-json", "link", "show", "dev", routes[0]["dev"]))
    except (CommandError, LookupError):
        return 0
    return int(links[0].get("mtu", 0))
