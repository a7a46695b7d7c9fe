"""Faults of Services. They share one Service of the lab's own, so that they show on a lab without any."""

import sys

from lab.cluster import Cluster
from lab.faults.fault import Action, Fault, commands, running, together
from lab.host import Host
from lab.workload import RESPONDS, WEB_NODE_PORT, serve_web, start_responder

LISTENING = (
    *(sys.executable, "-I", "-S", "-c"),
    f"import socket, time; s = socket.create_server(('', {WEB_NODE_PORT})); time.sleep(1e6)",
)
REDIRECT = """table ip early {
 chain prerouting {
  type nat hook prerouting priority -150;
  ip daddr 10.96.0.0/12 tcp dport 80 redirect to :8080
 }
}
"""


def serve(cluster: Cluster, _target: Host) -> None:
    serve_web(cluster, next(iter(cluster.pods)))


def deafen(cluster: Cluster, target: Host) -> None:
    serve_web(cluster, target)
    cluster.end(target.name, RESPONDS)


def listen(cluster: Cluster, target: Host) -> None:
    start_responder(cluster, target)


def after_serving(act: Action) -> Action:
    return together(serve, act)


listens, ends = running("listens", *LISTENING)

SERVICES = (
    Fault(
        "endpoint",
        "{target}, endpoint of default/lab-web, stops listening",
        "NN210",
        ("check", "net"),
        deafen,
        listen,
        target="pod-2-1",
        is_seen_by_others=True,
    ),
    Fault(
        "port",
        f"a program on {{target}} listens on node port {WEB_NODE_PORT}",
        "NN211",
        ("check", "host"),
        after_serving(listens),
        ends,
    ),
    Fault(
        "redirect",
        "a foreign rule on {target} translates calls to Services first",
        "NN312",
        ("check", "host"),
        after_serving(commands("nft -f -", stdin=REDIRECT)),
        commands("nft delete table ip early"),
    ),
)
