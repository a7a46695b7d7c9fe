"""Faults of a node: its daemons, its settings, and the rules of others."""

from signal import SIGCONT, SIGKILL, SIGSTOP

from lab.cluster import Cluster
from lab.faults.fault import PEACE_S, Action, Fault, commands, running
from lab.host import Host
from lab.processes import send

STRICT = """table inet strict {
 chain {hook} {
  type filter hook {hook} priority 0; policy drop;
  ct state established accept
  iifname lo accept
 }
}
"""


def killed(program: str) -> tuple[Action, Action]:
    def kill(cluster: Cluster, target: Host) -> None:
        cluster.stop(target.name, program, SIGKILL)

    def start(cluster: Cluster, target: Host) -> None:
        cluster.start_daemons([(target.name, program)])

    return kill, start


def hung(program: str) -> tuple[Action, Action]:
    def freeze(cluster: Cluster, target: Host) -> None:
        send([cluster.process(target.name, program)], SIGSTOP)

    def thaw(cluster: Cluster, target: Host) -> None:
        send([cluster.process(target.name, program)], SIGCONT)

    return freeze, thaw


def setting(name: str, bad: int, good: int) -> tuple[Action, Action]:
    return commands(f"sysctl -qw {name}={bad}"), commands(f"sysctl -qw {name}={good}")


DAEMONS = (
    Fault("netagent", "netagent on {target} is killed", "NN101", ("status",), *killed("netagent")),
    Fault("netproxy", "netproxy on {target} is killed", "NN201", ("status",), *killed("netproxy")),
    Fault("hung", "netproxy on {target} hangs", "NN201", ("status",), *hung("netproxy")),
    Fault(
        "flush",
        "a program on {target} keeps flushing all rules",
        "NN207",
        ("status",),
        *running("flushes-rules", "sh", "-c", "while sleep 0.1; do nft flush ruleset; done"),
        fades_s=PEACE_S,
    ),
)

HOST = (
    Fault(
        "forwarding",
        "{target} does not forward",
        "NN301",
        ("check", "host"),
        *setting("net.ipv4.ip_forward", 0, 1),
    ),
    Fault(
        "rp-filter",
        "{target} filters by reverse path, strictly",
        "NN302",
        ("check", "host"),
        *setting("net.ipv4.conf.all.rp_filter", 1, 0),
    ),
    Fault(
        "bridge",
        "the bridge on {target} bypasses netfilter",
        "NN303",
        ("check", "host"),
        *setting("net.bridge.bridge-nf-call-iptables", 0, 1),
    ),
    Fault(
        "input",
        "a firewall on {target} drops what comes in, the overlay too",
        "NN314",
        ("check", "host"),
        commands("nft -f -", stdin=STRICT.replace("{hook}", "input")),
        commands("nft delete table inet strict"),
    ),
    Fault(
        "forward",
        "a firewall on {target} drops what is forwarded",
        "NN313",
        ("check", "host"),
        commands("nft -f -", stdin=STRICT.replace("{hook}", "forward")),
        commands("nft delete table inet strict"),
    ),
    Fault(
        "kube-proxy",
        "kube-proxy left rules on {target}",
        "NN212",
        ("check", "host"),
        commands("iptables -w -t nat -N KUBE-SERVICES"),
        commands("iptables -w -t nat -X KUBE-SERVICES"),
    ),
)
