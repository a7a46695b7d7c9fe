"""Writes docs/packet-paths.md anew: each path a packet may take, as `netctl explain` tells it on a lab in both modes.

python -m bench.paths
"""

import sys
import time
from pathlib import Path
from typing import NamedTuple

from controlloop.client import get_json
from lab.cluster import up
from lab.topology import Spec
from lab.workload import as_manifest, netctl, start_responders

PAGE = Path(__file__).parent.parent / "docs" / "packet-paths.md"
NODE = "10.10.0.1"

HEAD = """# Packet paths

What becomes of the first packet of a connection, path by path: what `netctl explain` says on a lab of two nodes, on
node-1, in both modes. Nothing here is written by hand; `python -m bench.paths` regenerates the page.

`explain` reads the kernel's rules at that moment and sends nothing. Read an answer from the top: the verdict and whose
the address is, whether the endpoint sees an address of this node, each rule that the packet meets at each hook, and at
the end the possible endpoints with their shares and the way to each. `--verify` sends one packet and compares.
The Services of this page:

| Service | what is special |
|---|---|
| default/web | two endpoints, one on each node; node port 30080; load balancer 203.0.113.1 for 10.10.255.0/24 |
| default/near | external policy Local, with an endpoint on this node; node port 30081; load balancer 203.0.113.2 |
| default/far | both policies Local, and no endpoint on this node; node port 30082 |
| default/idle | no endpoints; node port 30083 |
"""


class Way(NamedTuple):
    title: str
    text: str
    source: str
    destination: str


PATHS = (
    Way("A pod calls a ClusterIP", "It keeps its address: answers come back to this node anyway.",
          "pod-1-2", "default/web"),
    Way("The node calls a ClusterIP", "It is masqueraded, for an endpoint elsewhere could answer past the rules.",
          "-", "default/web"),
    Way("From outside to a ClusterIP", "Where somebody routes it here.", "client", "default/web"),
    Way("From outside to a node port, external policy Cluster", "", "client", f"{NODE}:30080"),
    Way("From outside to a node port, external policy Local",
          "Only endpoints of this node, and they see the caller's own address.", "client", f"{NODE}:30081"),
    Way("The same without an endpoint on this node",
          "Dropped, never refused: a load balancer should try another node.", "client", f"{NODE}:30082"),
    Way("From outside to a load balancer's address, in its source ranges", "", "client", "203.0.113.1:80"),
    Way("A caller that is not in the source ranges", "", "pod-1-2", "203.0.113.1:80"),
    Way("A pod calls a load balancer's address under external policy Local",
          "It reaches all endpoints, and keeps its address.", "pod-1-2", "203.0.113.2:80"),
    Way("The node calls a node port under external policy Local", "", "-", f"{NODE}:30081"),
    Way("A pod calls its own Service", "If it lands on itself, it has to see another address than its own.",
          "pod-1-1", "default/web"),
    Way("A ClusterIP under internal policy Local, without an endpoint on this node", "", "pod-1-2", "default/far"),
    Way("A Service without endpoints", "", "pod-1-2", "default/idle"),
    Way("Its node port", "", "client", f"{NODE}:30083"),
    Way("A port that the Service does not have",
          "nftables refuses it; in iptables mode, as with kube-proxy, it goes on to wherever routes lead.",
          "pod-1-2", "10.96.0.10:81"),
    Way("No Service at all: a pod on another node", "The overlay alone.", "pod-1-2", "{pod-2-1}:8080"),
)  # fmt: skip


def service(name, address, *, node_port, balancer=None, **spec):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "default", "name": name},
        "spec": {
            "type": "LoadBalancer" if balancer else "NodePort",
            "clusterIP": address,
            "ports": [{"name": "http", "port": 80, "nodePort": node_port}],
            **spec,
        },
        "status": {"loadBalancer": {"ingress": [{"ip": balancer}] if balancer else []}},
    }


def endpoint_slice(name, cluster, pods):
    node_of = {pod: node for node, pod in cluster.spec.all_pods}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "default",
            "name": f"{name}-1",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [str(cluster.pod_address(pod))], "nodeName": node_of[pod]} for pod in pods],
    }


def objects(cluster):
    local = "Local"
    return [
        service("web", "10.96.0.10", node_port=30080, balancer="203.0.113.1",
                loadBalancerSourceRanges=["10.10.255.0/24"]),
        endpoint_slice("web", cluster, ["pod-1-1", "pod-2-1"]),
        service("near", "10.96.0.11", node_port=30081, balancer="203.0.113.2", externalTrafficPolicy=local),
        endpoint_slice("near", cluster, ["pod-1-1", "pod-2-1"]),
        service("far", "10.96.0.12", node_port=30082, externalTrafficPolicy=local, internalTrafficPolicy=local),
        endpoint_slice("far", cluster, ["pod-2-1"]),
        service("idle", "10.96.0.13", node_port=30083),
    ]  # fmt: skip


def told(cluster, path):
    pods = {pod.name: cluster.pod_address(pod.name) for pod in cluster.pods}
    destination = path.destination.format_map(pods)
    said = cluster.nodes[0].run(["netctl", "explain", path.source, destination], check=False)
    return f"```text\n$ netctl explain {path.source} {destination}\n{said.rstrip()}\n```"


def settle(cluster):
    """Wait until every node serves all four Services."""
    deadline = time.monotonic() + 20
    for node in cluster.nodes:
        while get_json(node.run_dir / "nodenet" / "netproxy.sock", "/status")["services"] != 4:
            if time.monotonic() > deadline:
                raise SystemExit(f"bench.paths: {node.name} does not serve the four Services")
            time.sleep(0.05)


def page(cluster):
    answers = {}
    for mode in ("nftables", "iptables"):
        if cluster.spec.mode != mode:
            cluster.switch_mode(mode)
        settle(cluster)
        answers[mode] = [told(cluster, path) for path in PATHS]
    sections = [
        "\n\n".join(filter(None, (f"## {path.title}", path.text, "nftables:", nft, "iptables:", ipt)))
        for path, nft, ipt in zip(PATHS, answers["nftables"], answers["iptables"], strict=True)
    ]
    return "\n\n".join([HEAD.rstrip(), *sections]) + "\n"


def main():
    cluster = up(Spec("paths", nodes=2, mode="nftables"), lambda step: print(step, file=sys.stderr), owned=True)
    try:
        start_responders(cluster)
        netctl(cluster, ["apply", "-f", "-"], as_manifest(objects(cluster)))
        PAGE.write_text(page(cluster))
    finally:
        cluster.down()


if __name__ == "__main__":
    main()
