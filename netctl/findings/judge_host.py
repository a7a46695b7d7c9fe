"""What is wrong with this host, but for its rules (`judge_rules`). Pure."""

from collections.abc import Iterator, Mapping
from itertools import chain

from netctl.findings.finding import Finding
from netctl.findings.host_facts import HostFacts, Json, is_ours, vxlan
from netctl.findings.judge_rules import judge_rules

STRICT = 1
CONNTRACK_SHARE = 0.9
NEIGHBOR_SHARE, NEIGHBORS_CLEARED_S = 0.9, 60.0
"""Of a table so full the kernel throws entries out every few seconds. One where it does not holds permanent entries of
other network namespaces, which nobody here can count and for which there is room.
"""
CHECKSUM_SHARE, CHECKSUM_LEAST = 0.001, 20
"""One datagram in a thousand, and more than chance: cables lose fewer."""
OVERHEAD = {4: 50, 6: 70}
"""Bytes that VXLAN adds to a packet (RFC 7348): Ethernet, VXLAN, UDP and the outer IP header."""
DEFAULT_VNI, DEFAULT_PORT = 1, 8472
"""Of the first overlay, before there is a device."""
DAEMONS = ("netproxy", "netagent")
MANAGES = ("ManageForeignRoutes", "ManageForeignRoutingPolicyRules")


def judge_host(facts: HostFacts) -> Iterator[Finding]:
    yield from chain.from_iterable(part(facts) for part in PARTS)
    yield from judge_rules(facts)


def needed(facts: HostFacts) -> Iterator[Finding]:
    for program in facts.missing:
        yield Finding("NN306", program, f"{program} is not installed")
    for feature, refusal in facts.refused.items():
        yield Finding("NN305", feature, refusal)


def forwarding(facts: HostFacts) -> Iterator[Finding]:
    if facts.sysctls.get("ipv4/ip_forward") == 0:
        yield Finding("NN301", "IPv4", "net.ipv4.ip_forward = 0")
    # IPv6 is an overlay's business only where there is one: other nodes may well not forward it.
    has_ipv6 = any("local6" in vxlan(link) or link["ifname"].startswith("flannel-v6.") for link in facts.overlays)
    if has_ipv6 and facts.sysctls.get("ipv6/conf/all/forwarding") == 0:
        yield Finding("NN301", "IPv6", "net.ipv6.conf.all.forwarding = 0")
    bridges = {"ip": facts.sysctls.get("bridge/bridge-nf-call-iptables")}
    if has_ipv6:
        bridges["ip6"] = facts.sysctls.get("bridge/bridge-nf-call-ip6tables")
    for family, value in bridges.items():
        if value == 0:
            yield Finding("NN303", "bridges", f"net.bridge.bridge-nf-call-{family}tables = 0")


def paths_back(facts: HostFacts) -> Iterator[Finding]:
    """The interfaces that packets of pods come in on: the overlay, its underlay, the pods' bridge."""
    below = {str(vxlan(link).get("link", "")) for link in facts.overlays}
    for name in sorted({*below, *(link["ifname"] for link in facts.overlays), "cni0"} - {""}):
        both = {which: facts.sysctls.get(f"ipv4/conf/{which}/rp_filter", 0) for which in ("all", name)}
        if max(both.values()) == STRICT:
            strict = next(which for which, value in both.items() if value == STRICT)
            yield Finding("NN302", name, f"net.ipv4.conf.{strict}.rp_filter = 1")


def localnet(facts: HostFacts) -> Iterator[Finding]:
    # What iptables cannot read may hold the guard.
    if "iptables-nft" not in facts.iptables or any(
        is_guard(line) for lines in facts.iptables.values() for line in lines
    ):
        return
    for path, value in sorted(facts.sysctls.items()):
        if value and path.endswith("/route_localnet"):
            _, _, name, _ = path.split("/")
            yield Finding(
                "NN304", name, f"net.ipv4.conf.{name}.route_localnet = {value}, and no rule drops 127.0.0.0/8"
            )


def is_guard(line: str) -> bool:
    """Ours, or kubelet's."""
    return "-d 127.0.0.0/8 " in line and line.endswith(("-j DROP", "-j NETPROXY-LOOPBACK-ONLY"))


def networkd(facts: HostFacts) -> Iterator[Finding]:
    if facts.networkd is None:
        return
    for name in MANAGES:
        value = facts.networkd.get(name, "yes")
        if value.lower() not in {"no", "false", "0", "off"}:
            yield Finding("NN308", name, f"{name}={value}" + ("" if name in facts.networkd else ", its default"))


def vxlan_places(facts: HostFacts) -> Iterator[Finding]:
    """VNI and port of each overlay, or of the first that may come."""
    ours = {(vxlan(link)["id"], vxlan(link)["port"]) for link in facts.overlays} or {(DEFAULT_VNI, DEFAULT_PORT)}
    for link in facts.links:
        info = vxlan(link)
        if not is_ours(link) and (info.get("id"), info.get("port")) in ours:
            evidence = f"VNI {info['id']} at UDP port {info['port']} belongs to this device, which is not ours"
            yield Finding("NN317", link["ifname"], evidence)
    ports = {port for _, port in ours}
    for socket in facts.sockets:
        if socket.protocol == "udp" and socket.port in ports and socket.program:
            yield Finding("NN316", f"UDP port {socket.port}", f"{socket.program} has it at {socket.address}")


def mtus(facts: HostFacts) -> Iterator[Finding]:
    by_name: Mapping[str, Json] = {link["ifname"]: link for link in facts.links}
    for link in facts.overlays:
        info = vxlan(link)
        below = by_name.get(info.get("link", ""))
        overhead = OVERHEAD[6 if "local6" in info else 4]
        if below and link["mtu"] + overhead > below["mtu"]:
            evidence = f"MTU {link['mtu']} and {overhead} bytes of wrapping do not fit into {below['ifname']}'s MTU "
            yield Finding("NN321", link["ifname"], f"{evidence}{below['mtu']}")


def conntrack(facts: HostFacts) -> Iterator[Finding]:
    count = facts.sysctls.get("netfilter/nf_conntrack_count", 0)
    limit = facts.sysctls.get("netfilter/nf_conntrack_max", 0)
    if limit and count >= CONNTRACK_SHARE * limit:
        yield Finding("NN318", "connections", f"{count} of {limit} are tracked")


def neighbors(facts: HostFacts) -> Iterator[Finding]:
    for table in facts.neighbor_tables:
        if table.limited >= NEIGHBOR_SHARE * table.limit and table.cleared_s <= NEIGHBORS_CLEARED_S:
            evidence = f"{table.limited} of {table.limit} entries are taken"
            since_start = f"{table.overflows} found no room since the start"
            yield Finding("NN322", f"IPv{table.family.value}", f"{evidence}; {since_start}")


def checksums(facts: HostFacts) -> Iterator[Finding]:
    wrong = facts.wrong_checksums
    if wrong >= max(CHECKSUM_LEAST, CHECKSUM_SHARE * facts.datagrams):
        yield Finding("NN320", "UDP", f"{wrong} of {facts.datagrams} datagrams that came in had a wrong checksum")


def node_ports(facts: HostFacts) -> Iterator[Finding]:
    ports = {(each.protocol, each.port): each for each in facts.frontends if not each.address}
    for socket in facts.sockets:
        shadow = ports.get((socket.protocol, socket.port))
        if shadow and not socket.program.startswith(DAEMONS):
            program = socket.program or "a program"
            evidence = f"{program} listens at {socket.address}, and {shadow} takes its connections"
            yield Finding("NN211", f"{socket.protocol.upper()} port {socket.port}", evidence)


PARTS = (
    needed,
    forwarding,
    paths_back,
    localnet,
    networkd,
    vxlan_places,
    mtus,
    conntrack,
    neighbors,
    checksums,
    node_ports,
)
