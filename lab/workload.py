"""What runs in the lab's pods, and the questions asked of the cluster: pings, calls, Services to call."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from lab.cluster import Cluster, LabError
from lab.host import Host

PORT = 8080
RESPONDS = "responder"
WEB_ADDRESS, WEB_NODE_PORT = "10.96.0.100", 30099
CALL_TIMEOUT_S = 2.0
BARE_PYTHON = (sys.executable, "-I", "-S")
RESPONDER = str(Path(__file__).with_name("responder.py"))
CALLER = str(Path(__file__).with_name("caller.py"))


def start_responders(cluster: Cluster) -> None:
    """One server in every pod, listening when this returns."""
    for pod in cluster.pods:
        launch_responder(cluster, pod)
    for pod in cluster.pods:
        wait_until_listening(cluster, pod)


def start_responder(cluster: Cluster, pod: Host) -> None:
    """The server of one pod, unless it runs."""
    if not cluster.is_running(pod.name, RESPONDS):
        launch_responder(cluster, pod)
        wait_until_listening(cluster, pod)


def launch_responder(cluster: Cluster, pod: Host) -> None:
    cluster.log_of(pod.name, RESPONDS).unlink(missing_ok=True)
    cluster.start(pod, RESPONDS, [*BARE_PYTHON, RESPONDER, pod.name, str(PORT)])


def wait_until_listening(cluster: Cluster, pod: Host, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while "listening" not in cluster.log_of(pod.name, RESPONDS).read_text():
        if time.monotonic() > deadline:
            raise LabError(f"no responder on {pod.name} within {timeout_s:g} s")
        time.sleep(0.01)


def serve_web(cluster: Cluster, pod: Host) -> None:
    """Service default/lab-web, whose endpoint is this pod alone. Nodes follow within milliseconds."""
    start_responder(cluster, pod)
    web = service("lab-web", WEB_ADDRESS)
    web["spec"]["type"] = "NodePort"
    web["spec"]["ports"][0]["nodePort"] = WEB_NODE_PORT
    apply(cluster, web, endpoint_slice("lab-web", cluster, [pod.name]))


def ping_all(cluster: Cluster) -> Iterator[tuple[str, Mapping[str, bool]]]:
    """For each pod, which pods answer its ping. All pings of one pod run at once."""
    for source in cluster.pods:
        asked = {
            target.name: source.popen(
                ["ping", "-c1", "-W2", "-q", str(cluster.pod_address(target.name))],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for target in cluster.pods
        }
        yield source.name, {name: process.wait() == 0 for name, process in asked.items()}


def call(source: Host, address: str, port: int, *, protocol: str = "tcp", count: int = 1) -> list[str]:
    """What came back from `count` calls, each from a new port: `POD SOURCE`, or `refused`, `timeout`."""
    argv = [*BARE_PYTHON, CALLER, protocol, address, str(port), str(count), str(CALL_TIMEOUT_S)]
    return source.run(argv, timeout_s=30 + count * CALL_TIMEOUT_S).splitlines()


def spread(answers: Sequence[str]) -> Counter[str]:
    """How often each pod answered."""
    return Counter(answer.split()[0] for answer in answers)


def service(
    name: str, cluster_ip: str, *, protocol: str = "TCP", port: int = 80, balance: str | None = None
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": "default",
            "annotations": {"nodenet.io/balance": balance} if balance else {},
        },
        "spec": {"clusterIP": cluster_ip, "ports": [{"name": "main", "protocol": protocol, "port": port}]},
    }


def endpoint_slice(
    name: str, cluster: Cluster, pods: Sequence[str], *, protocol: str = "TCP", port: int = PORT
) -> dict[str, Any]:
    node_of = {pod: node for node, pod in cluster.spec.all_pods}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "main", "protocol": protocol, "port": port}],
        "endpoints": [{"addresses": [str(cluster.pod_address(pod))], "nodeName": node_of[pod]} for pod in pods],
    }


def as_manifest(objects: Sequence[Mapping[str, Any]]) -> str:
    return msgspec.json.encode({"apiVersion": "v1", "kind": "List", "items": objects}).decode()


def apply(cluster: Cluster, *objects: Mapping[str, Any]) -> str:
    """Write objects with the real `netctl apply`, on the first node."""
    return netctl(cluster, ["apply", "-f", "-"], as_manifest(objects))


def delete(cluster: Cluster, *objects: Mapping[str, Any]) -> str:
    return netctl(cluster, ["delete", "-f", "-"], as_manifest(objects))


def netctl(cluster: Cluster, arguments: Sequence[str], stdin: str = "") -> str:
    return cluster.nodes[0].run(["netctl", *arguments, *cluster.etcd_option], stdin=stdin)
