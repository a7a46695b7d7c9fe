"""`make demo`: a cluster on this machine, from leases in etcd to packets that land where they should."""

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from types import FrameType

from controlloop.client import UnreachableError, get_json
from lab.cluster import Cluster, LabError, can_run, sweep, up
from lab.host import ProgramError
from lab.pods import PodError
from lab.ready import NotStartedError
from lab.topology import Spec
from lab.workload import apply, call, endpoint_slice, ping_all, service, spread, start_responders

CALLS = 300
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SERVICES = {"random": "10.96.0.10", "round-robin": "10.96.0.20"}
NEXT = """\
What to try next:
  .venv/bin/netctl lab up --nodes 5 --mode nftables     a lab that stays until you end it
  .venv/bin/netctl lab status                           what every node holds
  .venv/bin/netctl lab exec node-2 -- ip route          look around on a node
  .venv/bin/netctl lab exec node-2 -- nft list ruleset  every service, in readable rules
  .venv/bin/netctl lab down"""


class Steps:
    """Prints each step with the time since the start, and ends the walk when somebody interrupts it."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._interrupted = False

    def interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self._interrupted = True
        # A second Ctrl-C would leave half of the lab: taking it down comes to its end.
        for number in INTERRUPTS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    def __call__(self, text: str) -> None:
        # Python swallows what is raised while an object is destroyed; then this is the next moment to notice.
        if self._interrupted:
            raise KeyboardInterrupt
        print(f"{time.monotonic() - self._started:5.1f} s  {text}", flush=True)


def show_leases(cluster: Cluster) -> None:
    node_at = {str(cluster.spec.attached[node.name].ip): node.name for node in cluster.nodes}
    for key, lease in cluster.leases().items():
        node = node_at[lease["PublicIP"]]
        pods = ", ".join(str(cluster.pod_address(pod)) for pod in cluster.spec.pod_names(node))
        print(f"         {key:<16} {node} {lease['PublicIP']}  VTEP {lease['BackendData']['VtepMAC']}  pods {pods}")


def show_matrix(cluster: Cluster) -> bool:
    names = [pod.name for pod in cluster.pods]
    print("         from \\ to " + " ".join(f"{name:>8}" for name in names))
    whole = True
    for source, answered in ping_all(cluster):
        print(f"         {source:<9} " + " ".join(f"{'yes' if answered[name] else 'NO':>8}" for name in names))
        whole &= all(answered.values())
    return whole


def show_spread(balance: str, counts: Mapping[str, int]) -> bool:
    for pod, count in sorted(counts.items()):
        print(f"         {pod:<10} {count:4}  {'#' * round(count / 5)}")
    if balance == "round-robin":
        return sorted(counts.values()) == [CALLS // 3] * 3
    return len(counts) == 3 and sum(counts.values()) == CALLS


def wait_for_endpoints(cluster: Cluster, count: int, timeout_s: float = 60.0) -> None:
    """Until every node has programmed so many endpoints."""
    deadline = time.monotonic() + timeout_s
    for node in cluster.nodes:
        while netproxy_status(cluster, node.name).get("endpoints", 0) < count:
            if time.monotonic() > deadline:
                raise LabError(f"netproxy on {node.name} has no {count} endpoints after {timeout_s:g} s")
            time.sleep(0.02)


def netproxy_status(cluster: Cluster, node: str) -> Mapping[str, int]:
    try:
        document: Mapping[str, int] = get_json(cluster.host(node).run_dir / "nodenet/netproxy.sock", "/status")
    except UnreachableError:
        return {}
    return document


def call_services(cluster: Cluster, say: Steps) -> bool:
    caller = cluster.host("pod-1-2")
    good = True
    for balance, address in SERVICES.items():
        say(f"{CALLS} connections from {caller.name} to {address}:80, {balance}, in {cluster.spec.mode} mode")
        counts: Counter[str] = spread(call(caller, address, 80, count=CALLS))
        good &= show_spread(balance, counts)
    return good


def walk(cluster: Cluster, say: Steps) -> bool:
    say("leases, from etcd")
    show_leases(cluster)
    start_responders(cluster)
    say("every pod to every pod over VXLAN")
    good = show_matrix(cluster)
    backends = [cluster.spec.pod_names(node)[0] for node in cluster.spec.node_names]
    for balance, address in SERVICES.items():
        name = f"web-{balance}"
        apply(cluster, service(name, address, balance=balance), endpoint_slice(name, cluster, backends))
    wait_for_endpoints(cluster, len(SERVICES) * len(backends))
    good &= call_services(cluster, say)
    say("switching every netproxy to iptables mode")
    cluster.switch_mode("iptables")
    return call_services(cluster, say) and good


def main() -> int:
    if reason := can_run():
        print(f"demo: {reason}", file=sys.stderr)
        return 2
    say = Steps()
    for number in INTERRUPTS:
        signal.signal(number, say.interrupt)
    try:
        return run(say)
    except (LabError, NotStartedError, PodError, ProgramError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; the lab is gone", file=sys.stderr)
        return 130


def run(say: Steps) -> int:
    say("a lab of 3 nodes, 2 pods on each, one client, one etcd: network namespaces only")
    sweep()
    # A name of its own: several demos can run at once.
    cluster = up(Spec(f"demo-{os.getpid()}", mode="nftables"), say, owned=True)
    try:
        good = walk(cluster, say)
    finally:
        cluster.down()
    say("the lab is gone; nothing is left behind")
    print(f"\n{NEXT}" if good else "demo: something did not behave as shown above should", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
