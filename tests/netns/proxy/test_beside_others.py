"""The proxy among other rules, narrow links, errors on the way, and Services that want the same or make no sense."""

import json
import subprocess
from contextlib import contextmanager

import pytest
from disturbances import narrow_overlay, policy, sysctl
from manifests import port, service, slices
from namespace import inside
from network import ADDRESSES
from rig import only_iptables

from controlloop.family import Family

kube_proxy = pytest.mark.kube_proxy
both_families = pytest.mark.parametrize("family", Family)

EARLY, LATE = "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"
HEALTH_PORT = 31000
PLUGINS = "/usr/lib/cni"
WITHIN_S = 30.0


def node_port(name="web", at="cluster-ip", number=30080, **spec):
    return service(name, at, **{"type": "NodePort", "ports": [port(node=number)], **spec})


@kube_proxy("6.2-31", "gap 5.2-3")
@both_families
def test_a_packet_outside_of_the_window_where_conntrack_is_liberal(rig, family):
    """It is translated as any other and does no harm; this is how nftables mode, which drops none, is made safe."""
    rig.given(service(), slices("pod-2-1"), tcp_be_liberal=True)
    with sysctl(rig.board.network, "net/netfilter/nf_conntrack_tcp_be_liberal", "1"):
        (call,) = rig.call("pod-1-3", "cluster-ip", 80, family=family)
        rig.stray("pod-2-1", call)
        assert rig.board.echo(call, b"still there", within_s=WITHIN_S) == 11


@only_iptables
def test_a_node_that_forwards_nothing_by_itself(rig):
    """Whoever set the policy DROP lets pods out by rules of his own; what we masquerade, and answers, pass by ours."""
    rig.given(node_port(), slices("pod-1-1", "pod-2-1"))
    with policy(rig.board.network, rig.variant, "FORWARD", "DROP"):
        rig.expect("""
            client  -> node-1:30080  = pod-1-1 pod-2-1 masqueraded
            client  -> cluster-ip:80 = pod-1-1 pod-2-1 masqueraded
            node-1  -> cluster-ip:80 = pod-1-1 pod-2-1 masqueraded
            pod-1-3 -> pod-2-1:8080  = dropped
        """)


@kube_proxy("6.1-10")
@only_iptables
def test_health_checks_come_in_where_nothing_else_does(rig):
    """And the rule that lets them in goes when the port is no longer one."""
    rig.given(health_check_ports=frozenset({HEALTH_PORT}))
    with policy(rig.board.network, rig.variant, "INPUT", "DROP"):
        rig.expect(f"""
            client -> node-1:{HEALTH_PORT}     = node-1:{HEALTH_PORT}
            client -> node-1:8080              = dropped
            client -> udp/node-1:{HEALTH_PORT} = dropped
        """)
        rig.surround()
        rig.expect(f"client -> node-1:{HEALTH_PORT} = dropped")


@contextmanager
def host_port(rig, pod, number, protocol):
    """Made and removed by the CNI plugin portmap, as a container runtime has it done."""
    config = {
        "cniVersion": "0.4.0",
        "name": "flows",
        "type": "portmap",
        "capabilities": {"portMappings": True},
        "runtimeConfig": {"portMappings": [{"hostPort": number, "containerPort": 8080, "protocol": protocol}]},
        "prevResult": {
            "cniVersion": "0.4.0",
            "interfaces": [{"name": "eth0", "sandbox": f"/run/netns/{rig.board.network.namespace(pod)}"}],
            "ips": [{"version": "4", "interface": 0, "address": f"{ADDRESSES[pod][Family.V4]}/24"}],
        },
    }
    environment = {
        "CNI_CONTAINERID": f"{pod}-{protocol}",
        "CNI_NETNS": f"/run/netns/{rig.board.network.namespace(pod)}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": PLUGINS,
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }

    def run(command):
        argv = [f"{PLUGINS}/portmap"]
        with inside(rig.board.network.namespace("node-1")):
            done = subprocess.run(
                argv,
                env={**environment, "CNI_COMMAND": command},
                input=json.dumps(config),
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 0, done.stdout

    run("ADD")
    try:
        yield
    finally:
        run("DEL")


@kube_proxy("6.2-52")
def test_host_ports_of_a_container_runtime(rig):
    """The CNI plugin portmap gives two pods one number, of two protocols; a Service has the number next to it."""
    rig.given(node_port(number=30081), slices("pod-2-1"))
    with host_port(rig, "pod-1-1", 30090, "tcp"), host_port(rig, "pod-1-2", 30090, "udp"):
        rig.expect(
            """
            client -> node-1:30090     = pod-1-1
            client -> udp/node-1:30090 = pod-1-2
            client -> node-1:30081     = pod-2-1 masqueraded
            """,
            [Family.V4],
        )
        rig.add(node_port(number=30082))
        rig.expect("client -> node-1:30090 = pod-1-1", [Family.V4])


@both_families
def test_errors_of_an_endpoint_reach_the_caller(rig, family):
    """As if they came from the address that was called."""
    ports = [port(80, "TCP", name="tcp"), port(80, "UDP", name="udp")]
    closed = [port(9999, "TCP", name="tcp"), port(9999, "UDP", name="udp")]
    rig.given(service(ports=ports, type="LoadBalancer", balancer=["vip"]), slices("pod-2-1", ports=closed))
    rig.expect(
        """
        pod-1-3 -> cluster-ip:80     = refused
        pod-1-3 -> udp/cluster-ip:80 = refused
        client  -> vip:80            = refused
        client  -> udp/vip:80        = refused
        """,
        [family],
    )


@both_families
def test_a_narrow_link_on_the_way_to_the_endpoint(rig, family):
    """ICMP says how much fits, to the caller behind the masquerading."""
    rig.given(service(type="LoadBalancer", balancer=["vip"]), slices("pod-2-1"))
    with narrow_overlay(rig.board.network, 1300):
        for caller, target in (("client", "vip"), ("pod-1-3", "cluster-ip"), ("client", "cluster-ip")):
            assert rig.echo(b"x" * 200_000, caller, target, 80, family=family) == 200_000


@kube_proxy("extra-4", "gap 5.7-8")
def test_a_service_that_makes_no_sense_among_others(rig):
    """It is named, and the others are served; one that made sense once is served as it was then."""
    rig.given(service(), slices("pod-1-1"))
    bad = service("bad", "cluster-ip-2", ports=[port(70_000)])
    rig.add(bad, service("good", "cluster-ip-3"), slices("pod-1-2", of="good"), slices("pod-1-2", of="bad"))
    rig.add({**service(), "spec": {"clusterIP": "10.96.0.80; flush ruleset", "ports": [port()]}})
    rig.expect("""
        pod-1-3 -> cluster-ip:80   = pod-1-1
        pod-1-3 -> cluster-ip-3:80 = pod-1-2
        pod-1-3 -> cluster-ip-2:80 = dropped
    """)
    assert {"default/bad", "default/web"} <= {name.split()[-1] for name in rig.tracker.skipped}


def test_two_services_want_one_node_port(rig):
    """The older one has it, and the other takes over when that goes."""
    old = node_port("old", "cluster-ip", created=EARLY)
    new = node_port("new", "cluster-ip-2", created=LATE)
    rig.given(new, slices("pod-1-2", of="new"))
    rig.expect("client -> node-1:30080 = pod-1-2 masqueraded")
    rig.add(old, slices("pod-1-1", of="old"))
    rig.expect("""
        client  -> node-1:30080    = pod-1-1 masqueraded
        pod-1-3 -> cluster-ip-2:80 = pod-1-2
    """)
    assert "default/new" in " ".join(rig.tracker.skipped)
    rig.remove(old)
    rig.expect("client -> node-1:30080 = pod-1-2 masqueraded")


def test_an_external_address_that_is_a_cluster_ip_of_another_service(rig):
    """It cannot be taken from its owner by who comes later."""
    rig.given(service(created=EARLY), slices("pod-1-1"))
    rig.add(service("thief", "cluster-ip-2", external=["cluster-ip"], created=LATE), slices("pod-1-2", of="thief"))
    rig.expect("""
        pod-1-3 -> cluster-ip:80   = pod-1-1
        pod-1-3 -> cluster-ip-2:80 = pod-1-2
    """)
