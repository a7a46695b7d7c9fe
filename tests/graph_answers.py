"""What nodes say to `netctl graph`, made up: a whole cluster, of which some nodes are asked."""

from ipaddress import ip_address, ip_network

from netctl.findings.finding import Finding
from netctl.graph.answers import NodeAnswers
from netctl.graph.document import network_graph

NOW = 1_000_000.0
NETWORK = {"network": "10.0.0.0/8", "subnet_len": 24, "subnet_min": "10.0.1.0", "subnet_max": "10.255.255.0"}
SMALL_NETWORK = {"network": "10.244.0.0/16", "subnet_len": 24, "subnet_min": "10.244.1.0", "subnet_max": "10.244.255.0"}
V6_NETWORK = {
    "network": "fd00:10::/48",
    "subnet_len": 64,
    "subnet_min": "fd00:10:0:1::",
    "subnet_max": "fd00:10:0:ffff::",
}


def lease(number, network=SMALL_NETWORK, **changes):
    """Of the node of that number, which counts from 1."""
    subnet = list_subnet(network, number)
    return {
        "key": str(subnet).replace("/", "-"),
        "subnets": [str(subnet)],
        "public_ips": [str(ip_address("192.168.0.0") + number)],
        "backend": "vxlan",
        "own": False,
        "expires": True,
        "revision": number,
        "skipped": None,
    } | changes


def list_subnet(network, number):
    whole = ip_network(network["network"])
    step = 1 << (whole.max_prefixlen - network["subnet_len"])
    return ip_network((int(whole.network_address) + number * step, network["subnet_len"]))


def peer(of, **changes):
    facts = {name: of[name] for name in ("key", "subnets", "public_ips", "backend")}
    found = {"mac": None, "device": "flannel.1", "programmed": True, "skipped": None, "reach": "reachable"}
    times = {"rtt_ms": 0.25, "last_answer": NOW - 4, "lost_since": None, "large_lost_since": None}
    return facts | found | times | changes


def frontend(name="default/web:http", endpoints=("10.244.1.5:8080",), **changes):
    return {
        "service": name,
        "port_name": "http",
        "address": "10.96.0.10",
        "protocol": "tcp",
        "port": 80,
        "scope": "ClusterIP",
        "balance": "random",
        "endpoints": list(endpoints),
        "weights": None,
        "inside": None,
        "sources": [],
        "refusal": "reject",
        "affinity_s": 0,
    } | changes


def agent(leases, own, peers, networks=(SMALL_NETWORK,)):
    items = [{**each, "own": each["key"] == own} for each in leases]
    network = {"backend": "vxlan", "ranges": list(networks)}
    return {"network": network, "leases": {"items": items}, "peers": {"items": list(peers)}}


def answers(name="node-1", own=1, nodes=3, *, frontends=(), findings=(), change=lambda _: {}, **agent_settings):
    """Of the node of number `own`; `change` gives what is different about the path to the node of a number."""
    network = agent_settings.get("networks", (SMALL_NETWORK,))[0]
    leases = [lease(number, network) for number in range(1, nodes + 1)]
    peers = [peer(each, **change(number)) for number, each in enumerate(leases, 1) if number != own]
    pages = {"netagent": agent(leases, leases[own - 1]["key"], peers, **agent_settings)}
    return NodeAnswers(name, NOW, findings, pages, frontends, [])


def mesh(nodes, change=None, **settings):
    """Every node is asked; `change` as for `answers`, from the number of one node and another."""
    change = change or (lambda *_: {})
    return [
        answers(f"node-{own}", own, nodes, change=lambda other, own=own: change(own, other), **settings)
        for own in range(1, nodes + 1)
    ]


def lost(since=NOW - 192):
    return {"reach": "lost", "lost_since": since, "rtt_ms": 0.3}


def unanswered(of, evidence="does not answer over the overlay any more"):
    return Finding("NN104", of, evidence, NOW - 192)


def large(peers=5000, services=10_000):
    """What one node of a large cluster tells: one peer is lost, one Service has no endpoints."""

    def change(number):
        return lost() if number == 77 else {"rtt_ms": 0.05 * (number % 90 + 1)}

    frontends = [
        frontend(
            f"team-{number % 40}/service-{number}:http",
            [
                f"{list_subnet(NETWORK, (number * 5 + place) % peers + 1)[7]}:8080"
                for place in range(5 * (number != 4321))
            ],
            address=str(ip_address("172.16.0.0") + number),
        )
        for number in range(services)
    ]
    finding = unanswered(lease(77, NETWORK)["key"])
    settings = {"frontends": frontends, "findings": [finding], "networks": (NETWORK,)}
    return network_graph([answers(nodes=peers + 1, change=change, **settings)])
