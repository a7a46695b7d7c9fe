"""All that a bundle asks a node. What is not in this table, no command can be answered from a bundle.

Some questions depend on answers to others: which tables nftables has, and whether legacy ones of iptables are in use.
Those of iptables-nft are not asked for twice: as JSON they take nft several seconds on a large node.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import product

from controlloop.family import Family
from netctl.actual import overlay
from netctl.bundle.question import KERNEL, LOG, METRICS, OUTPUT, PAGE, PROCESS, STATUS, TEXT, TEXTS, Question
from netctl.explain import recorded
from netctl.explain.command import ALLOCATIONS
from netctl.findings import facts
from netctl.findings.host_facts import is_of_iptables
from netctl.kernel import QUESTIONS as KERNEL_QUESTIONS
from netctl.node import PROXY

AGENT_PAGES = (STATUS, "/peers", "/leases", "/network", "/desired", "/events", METRICS)
PROXY_PAGES = (STATUS, "/frontends", "/objects", "/desired", "/events", "/configz", METRICS)

NFT_TABLES = ("nft", "--terse", "list", "chains")
"""With the tables that have none. For `list tables` nft 1.0.6 reads the elements of all sets, which takes a second."""
TABLE = re.compile(r"table (\S+) (.+) \{")
LEGACY_NAMES = {
    (f"{program}-legacy-save", "--counters"): recorded.LEGACY_NAMES[family]
    for family, program in ((Family.V4, "iptables"), (Family.V6, "ip6tables"))
}
"""Who prints legacy tables, and where the kernel says that it has some; without them, printing would make them."""
SAVED = {program: (f"{program}-save", "--counters") for program in ("iptables-nft", "ip6tables-nft")}
PROGRAMS = (
    *facts.VERSIONS,
    ("uname", "-a"),
    facts.LINKS,
    ("ip", "-s", "link", "show"),
    overlay.ADDRESSES,
    *recorded.RULES.values(),
    *recorded.ROUTES.values(),
    recorded.NEIGHBORS,
    overlay.FDB,
    *overlay.ROUTES.values(),
    *overlay.NEIGHBORS.values(),
    *overlay.WIREGUARD.values(),
    facts.SOCKETS,
    facts.NEIGHBOR_TABLES,
    ("ss", "-s"),
    *SAVED.values(),
    facts.MAY_TRY,
    *facts.TRIALS.values(),
)
FILES = (
    "/proc/net/ip_tables_names",
    "/proc/net/ip6_tables_names",
    "/etc/os-release",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/uptime",
    "/proc/net/stat/nf_conntrack",
    "/proc/net/softnet_stat",
    facts.SNMP,
    facts.NETWORKD_RUNS,
    facts.NETWORKD_FILE,
)
UNITS = tuple(f"/{place}/systemd/system/net{daemon}*" for place in ("etc", "usr/lib") for daemon in ("agent", "proxy"))
PATTERNS = (
    *(f"{facts.SYSCTL_FOLDER}/{pattern}" for pattern in facts.SYSCTLS),
    *facts.NETWORKD_DROP_INS,
    *ALLOCATIONS,
    recorded.RECENT,
    *(recorded.SETTING.format(family.value, name) for family, names in recorded.SETTINGS.items() for name in names),
    "/proc/sys/net/ipv4/ip_local_*",
    "/proc/sys/net/ipv6/conf/*/accept_ra",
    "/proc/sys/net/netfilter/nf_conntrack_*",
    "/run/flannel/*.env",
    "/etc/default/net*",
    "/etc/cni/net.d/*",
    "/etc/sysctl.d/*nodenet*",
    *(f"{unit}{what}" for unit, what in product(UNITS, (".service", ".service.d/*.conf"))),
)


def questions(daemons: Iterable[str]) -> Iterator[Question]:
    """Those that do not depend on an answer; each daemon's status comes first among its own."""
    for daemon in daemons:
        yield from (Question(PAGE, (daemon, page)) for page in (PROXY_PAGES if daemon == PROXY else AGENT_PAGES))
        yield from (Question(kind, (daemon,)) for kind in (LOG, PROCESS))
    yield from (Question(OUTPUT, argv) for argv in PROGRAMS)
    yield from (Question(TEXT, (path,)) for path in FILES)
    yield from (Question(TEXTS, (pattern,)) for pattern in dict.fromkeys(PATTERNS))
    yield from (Question(KERNEL, (name,)) for name in KERNEL_QUESTIONS)


def first_questions() -> Iterator[Question]:
    """Those that `follow_ups` wants to have the answers of. They are quick."""
    yield Question(OUTPUT, NFT_TABLES)
    yield from (Question(TEXT, (path,)) for path in LEGACY_NAMES.values())


def legacy_questions(names: Mapping[str, str]) -> Iterator[Question]:
    """`names`: what the files of LEGACY_NAMES say."""
    for argv, path in LEGACY_NAMES.items():
        if names.get(path, "").split():
            yield Question(OUTPUT, argv)


def table_questions(listing: str) -> Iterator[Question]:
    """One for each table of nftables that is not of iptables; `listing`: the answer to NFT_TABLES."""
    for line in listing.splitlines():
        table = TABLE.fullmatch(line)
        if table and not is_of_iptables(table[1], table[2]):
            yield table_question(table[1], table[2])


def mixed_questions(saved: Mapping[str, str]) -> Iterator[Question]:
    """For tables of iptables that it cannot show, or not all of; `saved`: what it prints, by program."""
    lines = {program: text.splitlines() for program, text in saved.items()}
    yield from (table_question(*table) for table in facts.with_native_rules(lines))


def table_question(family: str, name: str) -> Question:
    return Question(OUTPUT, ("nft", "-j", "list", "table", family, name))
