"""What other programs' rules do to our packets. Pure.

A rule is read as text or JSON and judged by what stands in it literally: an address, a port, a device. What it catches
exactly `netctl explain` says, packet by packet.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from ipaddress import ip_address, ip_network
from itertools import chain, pairwise
from typing import NamedTuple

from netctl.findings.finding import Finding
from netctl.findings.host_facts import Frontend, HostFacts, Json, Table, reachable, targets, vxlan

OUR_PRIORITY = -100
"""NF_IP_PRI_NAT_DST: where Services are translated."""
TRANSLATIONS = ("dnat", "redirect")
NARROWING = ("-p", "-i", "-o", "-m")
"""Options of iptables that let only some of the overlay's or the pods' packets pass, or none."""
JUMP = re.compile(r" -[jg] (\S+)")
KNOWN_TABLES = {"firewalld": "NN310", "kube-proxy": "NN212"}


def judge_rules(facts: HostFacts) -> Iterator[Finding]:
    parts = (known_programs, kube_proxy, variants, dropped, closed, translated_first, translated_by_iptables)
    yield from chain.from_iterable(part(facts) for part in parts)


def known_programs(facts: HostFacts) -> Iterator[Finding]:
    for table in facts.tables:
        if table.name in KNOWN_TABLES:
            yield Finding(KNOWN_TABLES[table.name], str(table), f"nftables has {table}, which it keeps")
    ufw = [name for name, lines in facts.iptables.items() if any(":ufw" in line for line in lines)]
    for name in ufw:
        yield Finding("NN311", name, f"{name}-save shows chains of ufw")


def kube_proxy(facts: HostFacts) -> Iterator[Finding]:
    """Only who serves makes KUBE-SERVICES in table nat; kubelet has chains of that prefix too, and they may stay."""
    for name, lines in facts.iptables.items():
        count = sum(line.startswith(("-A KUBE-SVC-", "-A KUBE-SEP-")) for line in lines)
        if any(line.startswith(":KUBE-SERVICES ") for line in lines):
            yield Finding("NN212", name, f"chain KUBE-SERVICES, and {count} rules of Services", next=f"{name}-save")


def variants(facts: HostFacts) -> Iterator[Finding]:
    for base in ("iptables", "ip6tables"):
        counts = {
            name: sum(line.startswith("-A ") for line in lines)
            for name, lines in facts.iptables.items()
            if name.startswith(f"{base}-")
        }
        if len(counts) > 1 and all(counts.values()):
            evidence = " and ".join(f"{count} rules in {name}" for name, count in sorted(counts.items()))
            yield Finding("NN315", base, evidence, next="; ".join(f"{name}-save" for name in sorted(counts)))


def dropped(facts: HostFacts) -> Iterator[Finding]:
    """Where forwarded packets end by policy, and nothing that names pods or their devices lets them pass."""
    words = ("flannel", "cni0", *pod_networks(facts))
    yield from (finding("NN313", where, "") for where in without_way(facts, "forward", words))


def closed(facts: HostFacts) -> Iterator[Finding]:
    """Where packets to this node end by policy, and the overlay's port is in no rule that accepts."""
    for port in sorted({str(vxlan(link).get("port")) for link in facts.overlays}):
        missing = f", and no rule for UDP port {port}"
        yield from (finding("NN314", where, missing) for where in without_way(facts, "input", (port,)))


class Where(NamedTuple):
    object: str
    chain: str
    look: str


def finding(code: str, where: Where, missing: str) -> Finding:
    return Finding(code, where.object, f"chain {where.chain} drops by policy{missing}", next=where.look)


def without_way(facts: HostFacts, hook: str, words: Sequence[str]) -> Iterator[Where]:
    """Chains at this hook that drop by policy and lead to no rule that accepts what has one of the words, or all."""
    for table in facts.tables:
        rules = [RuleView(rule["chain"], may_pass(rule, words), targets(rule)) for rule in table.rules]
        for name in closed_hooks(table, hook):
            if not leads_out(name, rules):
                yield Where(str(table), name, f"nft list {table}")
    name = hook.upper()
    for program, lines in facts.iptables.items():
        rules = [RuleView(line.split()[1], line_may_pass(line, words), JUMP.findall(line)) for line in appended(lines)]
        # The overlay's own addresses are IPv4 unless somebody says otherwise, and a host may well close IPv6.
        is_closed = program.startswith("iptables-") and any(line.startswith(f":{name} DROP ") for line in lines)
        if is_closed and not leads_out(name, rules):
            yield Where(program, name, f"{program} -S {name}")


class RuleView(NamedTuple):
    chain: str
    passes: bool
    targets: Collection[str]
    """Chains that it may go on in."""


def leads_out(start: str, rules: Sequence[RuleView]) -> bool:
    """Whether some rule passes in this chain, or in one that it leads to."""
    reached = reachable([start], [(rule.chain, rule.targets) for rule in rules])
    return any(rule.passes and rule.chain in reached for rule in rules)


def appended(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if line.startswith("-A ")]


def pod_networks(facts: HostFacts) -> set[str]:
    """As the agent's own rules name them; before there are any, none."""
    rules = [line.split() for lines in facts.iptables.values() for line in lines if line.startswith("-A NETAGENT")]
    return {words[3].partition("/")[0] for words in rules if len(words) > 3 and words[2] in {"-s", "-d"}}


def may_pass(rule: Json, words: Sequence[str]) -> bool:
    """Whether it accepts what has one of the words, or what nothing but an address narrows."""
    if not any("accept" in part for part in rule["expr"]):
        return False
    text = json.dumps(rule["expr"])
    return any(word in text for word in words) or not any(map(narrows, rule["expr"]))


def narrows(part: Json) -> bool:
    left = part["match"]["left"] if "match" in part else None
    field = left.get("payload", {}).get("field") if isinstance(left, dict) else ""
    return left is not None and field not in {"saddr", "daddr"}


def line_may_pass(line: str, words: Sequence[str]) -> bool:
    if not line.endswith(" -j ACCEPT"):
        return False
    return any(word in line for word in words) or not any(f" {option} " in line for option in NARROWING)


def closed_hooks(table: Table, hook: str) -> Iterator[str]:
    return (each["name"] for each in table.chains if each.get("hook") == hook and each.get("policy") == "drop")


def shown(table: Table) -> str:
    return f"nft list {table}"


def translated_first(facts: HostFacts) -> Iterator[Finding]:
    """Chains at ours or an earlier priority: whoever comes first wins, and at one priority that is who was earlier."""
    for table in facts.tables:
        if not any(is_before_ours(each) for each in table.chains):
            continue
        for rule in table.rules:
            caught = caught_by(rule, facts.frontends)
            if any(word in part for part in rule["expr"] for word in TRANSLATIONS) and caught:
                evidence = f"a rule in chain {rule['chain']} translates connections to {caught}"
                yield Finding("NN312", str(table), evidence, next=shown(table))


def is_before_ours(chain: Json) -> bool:
    is_nat = chain.get("type") == "nat" and chain.get("hook") in {"prerouting", "output"}
    return is_nat and int(chain.get("prio", 0)) <= OUR_PRIORITY


def caught_by(rule: Json, frontends: Sequence[Frontend]) -> Frontend | None:
    """The first frontend whose packets meet all conditions on address and port that stand in the rule."""
    matches = [part["match"] for part in rule["expr"] if "match" in part]
    fits = (each for each in frontends if all(may_match(match, each) for match in matches))
    return next(fits, None)


def may_match(match: Json, frontend: Frontend) -> bool:
    """False only where the condition surely fails; what is not known here may hold."""
    field = match["left"].get("payload", {}) if isinstance(match["left"], dict) else {}
    values = members(match["right"])
    holds = True
    if field.get("field") == "daddr":
        holds = any(covers(value, frontend.address) for value in values)
    elif field.get("field") == "dport":
        same = field.get("protocol") in {frontend.protocol, "th"}
        holds = same and any(in_range(value, frontend.port) for value in values)
    else:
        return True
    return holds if match.get("op") != "!=" else not holds


def members(right: object) -> list[object]:
    return list(right["set"]) if isinstance(right, dict) and isinstance(right.get("set"), list) else [right]


def covers(value: object, address: str) -> bool:
    """A node port is called at addresses that are not known here."""
    if isinstance(value, dict) and "prefix" in value:
        value = f"{value['prefix']['addr']}/{value['prefix']['len']}"
    if not address or not isinstance(value, str):
        return True
    try:
        return ip_address(address) in ip_network(value, strict=False)
    except ValueError:
        return True


def in_range(value: object, port: int) -> bool:
    if isinstance(value, dict) and "range" in value:
        first, last = value["range"]
        return int(first) <= port <= int(last)
    return value == port if isinstance(value, int) else True


def translated_by_iptables(facts: HostFacts) -> Iterator[Finding]:
    """Rules that stand right in PREROUTING or OUTPUT, before ours; in chains of others only packet by packet."""
    for program, lines in facts.iptables.items():
        for line in lines:
            if not line.startswith(("-A PREROUTING ", "-A OUTPUT ")) or not (
                " -j DNAT " in line or "-j REDIRECT" in line
            ):
                continue
            caught = next((each for each in facts.frontends if line_may_match(line, each)), None)
            if caught:
                evidence = f"`{line}` translates connections to {caught}"
                yield Finding("NN312", program, evidence, next=f"{program} -t nat -S")


def line_may_match(line: str, frontend: Frontend) -> bool:
    words = line.split()
    options = dict(pairwise(words))
    port, protocol, to = options.get("--dport"), options.get("-p"), options.get("-d")
    if protocol and protocol != frontend.protocol:
        return False
    if port and not in_range(int(port) if port.isdigit() else None, frontend.port):
        return False
    return not to or "! -d" in line or covers(to, frontend.address)
