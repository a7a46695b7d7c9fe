"""What a host is made of, as the judges see it: values, and how they are read out of what programs print. Pure."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from netctl.explain.walk_iptables import is_builtin
from netctl.findings.neighbor_table import NeighborTable

Json = Mapping[str, Any]

OURS = re.compile(r"netproxy(-counters)?|netagent[0-9]*")
IPTABLES_TABLES = frozenset({"filter", "nat", "mangle", "raw", "security"})
"""Tables that iptables-nft keeps in families ip and ip6; iptables-nft-save shows them."""
TARGET = re.compile(r'"target": "([^"]+)"')
RULE = re.compile(r"-A (\S+) ")
TO_ADDRESS = re.compile(r"(?<!! )-d (\S+?)(?:/(?:32|128))? ")
TO_PORT = re.compile(r"-p (\w+) .*--dport (\d+) ")
COMMENT = re.compile(r'--comment "?([^" ]+)')
ENTRANCES = ("NETPROXY-SVC-", "NETPROXY-EXT-", "NETPROXY-ALLOW-")
USER = re.compile(r'\("([^"]+)",pid=(\d+)')


class Socket(NamedTuple):
    protocol: str
    """`tcp` or `udp`."""
    address: str
    port: int
    program: str
    """Empty: the kernel, or a program of somebody else."""


class Frontend(NamedTuple):
    address: str
    """Empty for a node port."""
    protocol: str
    port: int
    service: str = ""
    """`namespace/name:port` where the rules name it."""
    is_cluster_ip: bool = False

    def __str__(self) -> str:
        called = f"{self.address}:{self.port}" if self.address else f"node port {self.port}"
        called = f"[{self.address}]:{self.port}" if ":" in self.address else called
        return f"{called}/{self.protocol}" + (f" ({self.service})" if self.service else "")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of nftables that is not ours and not of iptables."""

    family: str
    name: str
    chains: Sequence[Json]
    """As `nft -j list table` shows them, base chains with hook, type, prio and policy."""
    rules: Sequence[Json]

    def __str__(self) -> str:
        return f"table {self.family} {self.name}"


@dataclass(frozen=True, slots=True)
class HostFacts:
    sysctls: Mapping[str, int] = field(default_factory=dict)
    """By path below /proc/sys/net; those that the kernel lacks are absent."""
    links: Sequence[Json] = ()
    """As `ip -json -details link` shows them."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Features that were tried and refused, with the first line of the refusal."""
    missing: Sequence[str] = ()
    """Programs that are not installed."""
    tables: Sequence[Table] = ()
    iptables: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Lines of `ip6tables-legacy-save` and its like, by what stands before `-save`; absent what could not be read."""
    sockets: Sequence[Socket] = ()
    """Those that listen, on TCP and UDP."""
    frontends: Sequence[Frontend] = ()
    """What netproxy serves, as the kernel's rules say it."""
    datagrams: int = 0
    wrong_checksums: int = 0
    """Of the UDP datagrams that came in since the start."""
    neighbor_tables: Sequence[NeighborTable] = ()
    networkd: Mapping[str, str] | None = None
    """Settings of section [Network]; None where systemd-networkd does not run."""

    @property
    def overlays(self) -> list[Json]:
        """Our devices: by their alias, or taken over from flanneld by their name."""
        return [link for link in self.links if is_ours(link) and link.get("linkinfo", {}).get("info_kind") == "vxlan"]


def is_ours(link: Json) -> bool:
    name = str(link["ifname"])
    return str(link.get("ifalias", "")).startswith("nodenet") or name.startswith(("flannel.", "flannel-v6."))


def vxlan(link: Json) -> Json:
    """Its `id`, `port`, `link`, `local`; empty for another kind of device."""
    info = link.get("linkinfo", {})
    return info.get("info_data", {}) if info.get("info_kind") == "vxlan" else {}


def read_sockets(listing: str) -> Iterator[Socket]:
    """From `ss --no-header --listening --numeric --tcp --udp --processes`."""
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) < 6 or not fields[4].rpartition(":")[2].isdigit():
            continue
        address, _, port = fields[4].rpartition(":")
        user = USER.search(line)
        program = f"{user[1]} (pid {user[2]})" if user else ""
        yield Socket(fields[0], address.partition("%")[0].strip("[]"), int(port), program)


def foreign_tables(listing: Json) -> list[tuple[str, str]]:
    """(family, name) of those with a base chain, from `nft -j list chains`."""
    chains = [item["chain"] for item in listing.get("nftables", ()) if "chain" in item]
    found = {(each["family"], each["table"]) for each in chains if "hook" in each}
    return sorted(each for each in found if not OURS.fullmatch(each[1]) and not is_of_iptables(*each))


def is_of_iptables(family: str, name: str) -> bool:
    return family in {"ip", "ip6"} and name in IPTABLES_TABLES


def read_table(family: str, name: str, listing: Json) -> Table:
    """From `nft -j list table`."""
    items = listing.get("nftables", ())
    chains = [item["chain"] for item in items if "chain" in item]
    return Table(family, name, chains, [item["rule"] for item in items if "rule" in item])


def native_part(table: Table) -> Table:
    """Of a table that iptables shows: its other base chains, and the rules that these lead to."""
    bases = [each for each in table.chains if "hook" in each and not is_builtin_chain(each)]
    jumps = [(rule["chain"], targets(rule)) for rule in table.rules]
    reached = reachable([each["name"] for each in bases], jumps)
    return replace(table, chains=bases, rules=[rule for rule in table.rules if rule["chain"] in reached])


def is_builtin_chain(chain: Json) -> bool:
    return is_builtin(chain["table"], chain["name"], chain["hook"], int(chain["prio"]))


def reachable(starts: Iterable[str], jumps: Sequence[tuple[str, Collection[str]]]) -> set[str]:
    """Chains that are come to from some; `jumps` are those of each rule, by its chain."""
    leads_to: dict[str, set[str]] = {}
    for chain, found in jumps:
        leads_to.setdefault(chain, set()).update(found)
    seen, due = set(starts), list(starts)
    while due:
        found = leads_to.get(due.pop(), set()) - seen
        seen |= found
        due += found
    return seen


def targets(rule: Json) -> list[str]:
    """Chains that it may go on in, also those in a verdict map that stands in the rule."""
    return TARGET.findall(json.dumps(rule["expr"]))


def frontends_in_maps(listings: Iterable[Json]) -> Iterator[Frontend]:
    """From `nft -j list map` of the maps `services` and `node-ports`: their keys end in protocol and port."""
    for listing in listings:
        for item in listing.get("nftables", ()):
            for key, verdict in item.get("map", {}).get("elem", ()):
                *address, protocol, port = key["concat"]
                is_cluster_ip = str(verdict.get("goto", {}).get("target", "")).startswith("cluster-")
                yield Frontend(str(address[0]) if address else "", protocol, int(port), "", is_cluster_ip)


def frontends_in_rules(lines: Iterable[str]) -> Iterator[Frontend]:
    """From iptables-save in iptables mode: rules that jump from the tree of addresses, or of node ports."""
    saved = list(lines)
    owners = owners_of_chains(saved)
    for line in saved:
        jump, port = line.rpartition(" -j ")[2], TO_PORT.search(line)
        if not port or not jump.startswith(ENTRANCES) or line.startswith("-A NETPROXY-SVC-"):
            continue
        address, comment = TO_ADDRESS.search(line), COMMENT.search(line)
        # In older rules, which a bundle may hold, the one that leads there names the Service.
        name = comment[1] if comment else owners.get(jump, "")
        is_cluster_ip = address is not None and jump.startswith("NETPROXY-SVC-")
        yield Frontend(address[1] if address else "", port[1], int(port[2]), name, is_cluster_ip)


def owners_of_chains(saved: Sequence[str]) -> dict[str, str]:
    """Which Service a chain is for: a comment says it where it translates, and what leads there is for the same."""
    owners: dict[str, str] = {}
    leads: dict[str, str] = {}
    for line in saved:
        if not (rule := RULE.match(line)):
            continue
        jump, comment = line.rpartition(" -j ")[2], COMMENT.search(line)
        if comment and jump.startswith("DNAT "):
            owners[rule[1]] = comment[1]
        elif rule[1].startswith(ENTRANCES):
            leads[rule[1]] = jump
    # ALLOW leads to EXT, and that to SVC or LB.
    for _ in ENTRANCES:
        owners |= {chain: owners[to] for chain, to in leads.items() if to in owners}
    return owners


def read_counters(snmp: str, group: str) -> dict[str, int]:
    """One group of /proc/net/snmp: a line of names, then one of numbers."""
    lines = [line.split()[1:] for line in snmp.splitlines() if line.startswith(f"{group}:")]
    return dict(zip(lines[0], map(int, lines[1]), strict=True)) if len(lines) == 2 else {}


def read_settings(texts: Iterable[str], section: str) -> dict[str, str]:
    """Of systemd's configuration files, the later ones winning."""
    found: dict[str, str] = {}
    for text in texts:
        current = ""
        for line in map(str.strip, text.splitlines()):
            if line.startswith("["):
                current = line.strip("[]")
            elif current == section and "=" in line and not line.startswith(("#", ";")):
                name, _, value = line.partition("=")
                found[name.strip()] = value.strip()
    return found
