"""What other programs' rules do to our packets. Pure.

A rule is read as text or JSON and judged by what stands in it literally: an address, a port, a device. What it catches
exactly `netctl explain` says, packet by packet.
"""

import json
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from itertools import chain, pairwise

from netctl.findings import Finding
from netctl.host_facts import Frontend, HostFacts, Json, Table, vxlan

OUR_PRIORITY = -100
"""NF_IP_PRI_NAT_DST: where Services are translated."""
TRANSLATIONS = ("dnat", "redirect")
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
    passes = ("flannel", "cni0", *pod_networks(facts))
    for table in facts.tables:
        for name in closed_hooks(table, "forward"):
            if not any(word in accepted for accepted in accepting(table) for word in passes):
                yield Finding("NN313", str(table), f"chain {name} at hook forward has policy drop", next=shown(table))
    for program, lines in facts.iptables.items():
        if ":FORWARD DROP" in prefixes(lines) and not any(is_pass(line, passes) for line in lines):
            yield Finding("NN313", program, "chain FORWARD has policy DROP", next=f"{program} -S FORWARD")


def pod_networks(facts: HostFacts) -> set[str]:
    """As the agent's own rules name them; before there are any, none."""
    rules = [line.split() for lines in facts.iptables.values() for line in lines if line.startswith("-A NETAGENT")]
    return {words[3].partition("/")[0] for words in rules if len(words) > 3 and words[2] in {"-s", "-d"}}


def is_pass(line: str, passes: tuple[str, ...]) -> bool:
    if line.startswith("-A FORWARD ") and "-j NETAGENT" in line:
        return True
    return line.startswith("-A ") and line.endswith("-j ACCEPT") and any(word in line for word in passes)


def prefixes(lines: Sequence[str]) -> set[str]:
    """`:FORWARD DROP [0:0]` without its counters."""
    return {line.partition(" [")[0] for line in lines if line.startswith(":")}


def closed(facts: HostFacts) -> Iterator[Finding]:
    """Where packets to this node end by policy, and the overlay's port is in no rule that accepts."""
    ports = {str(vxlan(link).get("port")) for link in facts.overlays}
    for table in facts.tables:
        for name in closed_hooks(table, "input"):
            for port in sorted(ports):
                if not any(port in accepted for accepted in accepting(table)):
                    evidence = f"chain {name} at hook input has policy drop, and no rule for UDP port {port}"
                    yield Finding("NN314", str(table), evidence, next=shown(table))
    for program, lines in facts.iptables.items():
        if ":INPUT DROP" not in prefixes(lines) or program.startswith("ip6"):
            continue
        for port in sorted(ports):
            if not any(f"port {port} " in line and line.endswith("-j ACCEPT") for line in lines):
                evidence = f"chain INPUT has policy DROP, and no rule for UDP port {port}"
                yield Finding("NN314", program, evidence, next=f"{program} -S INPUT")


def closed_hooks(table: Table, hook: str) -> Iterator[str]:
    return (each["name"] for each in table.chains if each.get("hook") == hook and each.get("policy") == "drop")


def accepting(table: Table) -> list[str]:
    """Rules that let something pass, as text to look for words in."""
    return [json.dumps(rule["expr"]) for rule in table.rules if any("accept" in part for part in rule["expr"])]


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
