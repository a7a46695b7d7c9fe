"""Reads what `netctl check host` judges. The only file of it with effects.

Nothing of the host is changed: features of the kernel are tried in a network namespace of their own, which goes with
the process. Needs root, as nft and iptables do.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from controlloop.command import CommandError, clean_environment, find
from controlloop.family import Family
from netctl.findings.host_facts import (
    Frontend,
    HostFacts,
    Table,
    foreign_tables,
    frontends_in_maps,
    frontends_in_rules,
    is_of_iptables,
    read_counters,
    read_settings,
    read_sockets,
    read_table,
)
from proxy.iptables.address_sets import AddressSets

TIMEOUT_S = 20.0
SYSCTLS = (
    "ipv4/ip_forward",
    "ipv6/conf/all/forwarding",
    "ipv4/conf/*/rp_filter",
    "ipv4/conf/*/route_localnet",
    "bridge/bridge-nf-call-ip*tables",
    "netfilter/nf_conntrack_count",
    "netfilter/nf_conntrack_max",
)
PROGRAMS = ("nft", "iptables", "ip", "ss")
INCOMPATIBLE = "is incompatible, use 'nft' tool"

NFT = ("nft", "--check", "--file", "-")
NAT = "type nat hook postrouting priority 100;"
NTH = ("statistic", "--mode", "nth", "--every", "2", "--packet", "0")
TRIALS = {
    "nftables": (NFT, "table ip probe {\n}\n"),
    "numgen in nftables": (NFT, "table ip probe {\n chain c {\n numgen random mod 2 0 accept\n }\n}\n"),
    "jhash in nftables": (NFT, "table ip probe {\n chain c {\n jhash ip saddr mod 2 0 accept\n }\n}\n"),
    "fib in nftables": (NFT, "table ip probe {\n chain c {\n fib daddr type local accept\n }\n}\n"),
    "masquerade in nftables": (NFT, f"table ip probe {{\n chain c {{\n {NAT}\n masquerade fully-random\n }}\n}}\n"),
    "VXLAN": (("ip", "link", "add", "probe", "type", "vxlan", "id", "1", "dstport", "8472"), ""),
    "statistic in iptables": (("iptables", "-A", "INPUT", "-m", *NTH), ""),
    "addrtype in iptables": (("iptables", "-A", "INPUT", "-m", "addrtype", "--dst-type", "LOCAL"), ""),
}
"""What the daemons need of the kernel: a command that works where it is there, and its input."""


@dataclass(slots=True)
class Reader:
    """Runs programs one by one, and remembers what could not be read: a check that was not made is no good news."""

    unread: list[str] = field(default_factory=list)

    def text(self, *argv: str) -> str | None:
        """None when it fails, and then noted."""
        done = run(argv)
        if done.returncode:
            self.unread.append(f"{' '.join(argv)}: {first_line(done.stderr)}")
        return None if done.returncode else done.stdout

    def file(self, path: Path) -> str:
        """Empty when it is not there, and when it may not be read, which is noted."""
        try:
            return path.read_text(errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            self.unread.append(f"{path}: {error.strerror}")
            return ""

    def document(self, *argv: str) -> Any:
        text = self.text(*argv)
        return json.loads(text) if text and text.strip() else {}


def run(argv: Sequence[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """A missing program or one that takes too long is a failure like others."""
    try:
        path = find(argv[0])
        return subprocess.run(
            [path, *argv[1:]],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            env=clean_environment(),
            errors="replace",
        )
    except CommandError as error:
        return subprocess.CompletedProcess(list(argv), error.returncode, "", error.stderr)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(list(argv), 1, "", f"no end within {TIMEOUT_S:g} s")


def first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "failed without a word")


def read_host(root: Path = Path("/")) -> tuple[HostFacts, list[str]]:
    """The facts, and what could not be read. `root`: where files are looked for."""
    reader = Reader()
    missing = [program for program in PROGRAMS if not is_installed(program)]
    iptables = read_iptables(reader, root)
    tables = read_tables(reader, iptables) if "nft" not in missing else []
    udp = read_counters(reader.file(root / "proc/net/snmp"), "Udp")
    facts = HostFacts(
        sysctls=read_sysctls(reader, root / "proc/sys/net"),
        links=reader.document("ip", "-json", "-details", "link", "show") or [],
        refused=refusals(reader),
        missing=missing,
        tables=tables,
        iptables=iptables,
        sockets=list(read_sockets(reader.text("ss", "-H", "-l", "-n", "-t", "-u", "-p") or "")),
        frontends=read_frontends(iptables),
        datagrams=udp.get("InDatagrams", 0) + udp.get("InErrors", 0),
        wrong_checksums=udp.get("InCsumErrors", 0),
        networkd=read_networkd(reader, root),
    )
    return facts, reader.unread


def is_installed(program: str) -> bool:
    try:
        find(program)
    except CommandError:
        return False
    return True


def read_sysctls(reader: Reader, folder: Path) -> dict[str, int]:
    paths = chain.from_iterable(folder.glob(pattern) for pattern in SYSCTLS)
    return {str(path.relative_to(folder)): int(text) for path in paths if (text := reader.file(path)).strip()}


def read_iptables(reader: Reader, root: Path) -> dict[str, list[str]]:
    """Legacy ones only where they hold something: asking for them would make the kernel set the tables up."""
    found = {}
    for name, names in (("iptables", "ip_tables_names"), ("ip6tables", "ip6_tables_names")):
        legacy = ("legacy",) if reader.file(root / "proc/net" / names).split() else ()
        for variant in ("nft", *legacy):
            program = f"{name}-{variant}"
            if is_installed(f"{program}-save") and (text := reader.text(f"{program}-save")) is not None:
                found[program] = text.splitlines()
    return found


def read_tables(reader: Reader, iptables: dict[str, list[str]]) -> list[Table]:
    listing = reader.document("nft", "-j", "list", "chains")
    named = foreign_tables(listing)
    spoiled = {(family, name) for family, name in incompatible(iptables) if is_of_iptables(family, name)}
    return [
        read_table(family, name, reader.document("nft", "-j", "-t", "list", "table", family, name))
        for family, name in sorted({*named, *spoiled})
    ]


def incompatible(iptables: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Tables with the names of iptables into which nft put what iptables cannot say."""
    for program, lines in iptables.items():
        for line in lines:
            if INCOMPATIBLE in line:
                yield "ip6" if program.startswith("ip6") else "ip", line.partition("`")[2].partition("'")[0]


def read_frontends(iptables: dict[str, list[str]]) -> list[Frontend]:
    """A map that is not there is no fault: the proxy may work in another mode, or not at all."""
    listings = []
    for family in ("ip", "ip6"):
        for name in ("services", "node-ports"):
            done = run(["nft", "-j", "list", "map", family, "netproxy", name])
            listings += [json.loads(done.stdout)] if done.returncode == 0 else []
    ruled = chain.from_iterable(map(frontends_in_rules, iptables.values()))
    return sorted({*frontends_in_maps(listings), *ruled})


def refusals(reader: Reader) -> dict[str, str]:
    if run(["unshare", "--net", "true"]).returncode:
        reader.unread.append("features of the kernel: trying them needs root")
        return {}
    found = {}
    try:
        AddressSets(Family.V4, "").check()
    except OSError as error:
        found["sets of addresses (ipset)"] = str(error)
    for feature, (argv, stdin) in TRIALS.items():
        if is_installed(argv[0]):
            done = run(["unshare", "--net", *argv], stdin)
            if done.returncode:
                found[feature] = first_line(done.stderr)
    return found


def read_networkd(reader: Reader, root: Path) -> dict[str, str] | None:
    """As systemd-networkd reads it: of files with one name that in the first folder counts, in the order of names."""
    if not (root / "run/systemd/netif/state").exists():
        return None
    folders = [root / place / "systemd/networkd.conf.d" for place in ("usr/lib", "run", "etc")]
    by_name = {path.name: path for folder in folders for path in sorted(folder.glob("*.conf"))}
    paths = [root / "etc/systemd/networkd.conf", *(by_name[name] for name in sorted(by_name))]
    return read_settings(map(reader.file, paths), "Network")


def route_mtu(address: str) -> int:
    """The largest packet that leaves towards an address; 0 when there is no way."""
    done = run(["ip", "-json", "route", "get", address])
    routes = json.loads(done.stdout) if done.returncode == 0 and done.stdout else []
    if not routes:
        return 0
    links = json.loads(run(["ip", "-json", "link", "show", "dev", routes[0]["dev"]]).stdout or "[{}]")
    return int(links[0].get("mtu", 0))
