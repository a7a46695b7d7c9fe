"""External addresses and load balancers: who is let in, who lands where, and what the endpoint sees."""

import pytest
from disturbances import own_address
from manifests import endpoint, port, service, slices
from network import ADDRESSES, CROWD_NETWORKS
from tables import ANSWER_WITHIN_S

from controlloop.family import Family

kube_proxy = pytest.mark.kube_proxy

NODE_PORT = [port(80, node=30080)]


def balanced(**spec):
    """A load balancer with everything that can be called from outside."""
    made = {"ports": NODE_PORT, "balancer": ["vip"], "external": ["external-ip"], **spec}
    return service(type="LoadBalancer", **made)


def ranges(*names):
    """Source ranges of the addresses of hosts, in both families."""
    return [f"{address}/{family.bits}" for name in names for family, address in ADDRESSES[name].items()]


CROWD = [str(network) for network in CROWD_NETWORKS.values()]


@kube_proxy("6.1-13", "6.2-48", "gap 5.1-7")
def test_external_policy_local(rig):
    """Inside of the cluster it makes no difference; from outside only the endpoints here are reached, which see who
    calls."""
    rig.given(balanced(externalTrafficPolicy="Local"), slices("pod-1-1", "pod-2-1"))
    rig.expect("""
        pod-1-3 -> cluster-ip:80  = pod-1-1 pod-2-1
        pod-1-3 -> external-ip:80 = pod-1-1 pod-2-1
        pod-1-3 -> vip:80         = pod-1-1 pod-2-1
        pod-1-3 -> node-1:30080   = pod-1-1 pod-2-1
        client  -> external-ip:80 = pod-1-1
        client  -> vip:80         = pod-1-1
        client  -> node-1:30080   = pod-1-1
        node-1  -> external-ip:80 = pod-1-1 pod-2-1 masqueraded
        node-1  -> vip:80         = pod-1-1 pod-2-1 masqueraded
        client  -> cluster-ip:80  = pod-1-1 pod-2-1 masqueraded
        pod-1-1 -> vip:80         = pod-1-1 pod-2-1
        pod-1-1 -> node-1:30080   = pod-1-1 pod-2-1
    """)


@kube_proxy("6.1-14", "6.2-11")
def test_external_policy_cluster(rig):
    rig.given(balanced(externalTrafficPolicy="Cluster"), slices("pod-1-1", "pod-2-1"))
    rig.expect("""
        pod-1-3 -> cluster-ip:80  = pod-1-1 pod-2-1
        pod-1-3 -> external-ip:80 = pod-1-1 pod-2-1 masqueraded
        pod-1-3 -> vip:80         = pod-1-1 pod-2-1 masqueraded
        pod-1-3 -> node-1:30080   = pod-1-1 pod-2-1 masqueraded
        client  -> external-ip:80 = pod-1-1 pod-2-1 masqueraded
        client  -> vip:80         = pod-1-1 pod-2-1 masqueraded
        client  -> node-1:30080   = pod-1-1 pod-2-1 masqueraded
    """)


@kube_proxy("6.2-20", "6.2-48", "6.2-25")
def test_external_policy_local_follows_the_pod(rig):
    """A node without an endpoint drops, so that a load balancer tries another one; it does not refuse."""
    rig.given(balanced(externalTrafficPolicy="Local"), slices("pod-1-1"))
    rig.expect("client -> vip:80 = pod-1-1")
    rig.add(slices("pod-2-1"))
    rig.expect("""
        client  -> vip:80             = dropped
        client  -> external-ip:80     = dropped
        client  -> node-1:30080       = dropped
        pod-1-3 -> vip:80             = pod-2-1
        node-1  -> node-1:30080       = pod-2-1 masqueraded
        client  -> cluster-ip:80      = pod-2-1 masqueraded
    """)
    rig.add(slices("pod-2-1", "pod-1-2"))
    rig.expect("client -> vip:80 = pod-1-2")
    rig.add(balanced(externalTrafficPolicy="Cluster"))
    rig.expect("client -> vip:80 = pod-1-2 pod-2-1 masqueraded")
    rig.add(balanced(externalTrafficPolicy="Local"))
    rig.expect("client -> vip:80 = pod-1-2")
    rig.add(slices())
    rig.expect("""
        client  -> vip:80       = refused
        client  -> node-1:30080 = refused
        pod-1-3 -> vip:80       = refused
    """)


@kube_proxy("6.2-20")
def test_external_policy_local_without_a_local_endpoint_for_datagrams(rig):
    ports = [port(80, "UDP", node=30080)]
    rig.given(balanced(ports=ports, externalTrafficPolicy="Local"), slices("pod-2-1", ports=[port(8080, "UDP")]))
    rig.expect("""
        client  -> udp/vip:80       = dropped
        client  -> udp/node-1:30080 = dropped
        pod-1-3 -> udp/vip:80       = pod-2-1
    """)


@kube_proxy("6.1-5", "6.1-6", "6.1-7")
def test_source_ranges(rig):
    """They hold at the load balancer's addresses alone."""
    made = balanced(balancer=["vip", "vip-2"], loadBalancerSourceRanges=CROWD)
    rig.given(made, slices("pod-1-1", "pod-2-1"))
    rig.expect("""
        stranger -> vip:80         = pod-1-1 pod-2-1 masqueraded
        stranger -> vip-2:80       = pod-1-1 pod-2-1 masqueraded
        client   -> vip:80         = dropped
        client   -> vip-2:80       = dropped
        pod-1-3  -> vip:80         = dropped
        node-1   -> vip:80         = dropped
        client   -> node-1:30080   = pod-1-1 pod-2-1 masqueraded
        client   -> external-ip:80 = pod-1-1 pod-2-1 masqueraded
        client   -> cluster-ip:80  = pod-1-1 pod-2-1 masqueraded
        pod-1-3  -> cluster-ip:80  = pod-1-1 pod-2-1
    """)


@kube_proxy("6.1-7")
def test_source_ranges_with_the_node_in_them(rig):
    """What a load balancer gave the node as its own address may call itself then."""
    rig.given(balanced(loadBalancerSourceRanges=ranges("node-1")), slices("pod-1-1"))
    rig.expect("""
        node-1 -> vip:80 = pod-1-1 masqueraded
        client -> vip:80 = dropped
    """)
    with own_address(rig.board.network, "vip"):
        rig.expect("node-1 -> vip:80 = pod-1-1 masqueraded")
        rig.add(balanced(loadBalancerSourceRanges=ranges("client")))
        rig.expect("node-1 -> vip:80 = dropped")


@kube_proxy("6.2-43")
def test_source_ranges_in_sequence(rig):
    rig.given(balanced(), slices("pod-1-1"))
    everybody, nobody, one_pod = (
        "pod-1-2 -> vip:80 = pod-1-1 masqueraded\npod-1-3 -> vip:80 = pod-1-1 masqueraded",
        "pod-1-2 -> vip:80 = dropped\npod-1-3 -> vip:80 = dropped",
        "pod-1-2 -> vip:80 = pod-1-1 masqueraded\npod-1-3 -> vip:80 = dropped",
    )
    rig.expect(everybody)
    for allowed, outcome in (
        (ranges("pod-1-2"), one_pod),
        (["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"], everybody),
        (["255.255.255.255/32", "ff00::1/128"], nobody),
        (ranges("pod-1-2"), one_pod),
        (["0.0.0.0/0", "::/0", "192.0.2.7/32"], everybody),
        ([], everybody),
    ):
        rig.add(balanced(loadBalancerSourceRanges=allowed))
        rig.expect(outcome)


@kube_proxy("6.1-5")
@pytest.mark.parametrize("family", Family)
def test_source_ranges_of_the_other_family_are_no_filter(rig, family):
    (other,) = set(Family) - {family}
    rig.given(balanced(loadBalancerSourceRanges=[f" {CROWD_NETWORKS[family]} "]), slices("pod-1-1"))
    rig.expect("client -> vip:80 = dropped\nstranger -> vip:80 = pod-1-1 masqueraded", [family])
    rig.expect("client -> vip:80 = pod-1-1 masqueraded", [other])


@kube_proxy("6.1-5")
def test_source_ranges_and_external_policy_local(rig):
    made = balanced(loadBalancerSourceRanges=CROWD, externalTrafficPolicy="Local")
    rig.given(made, slices("pod-1-1", "pod-2-1"))
    rig.expect("""
        stranger -> vip:80       = pod-1-1
        client   -> vip:80       = dropped
        pod-1-3  -> vip:80       = dropped
        client   -> node-1:30080 = pod-1-1
    """)
    rig.add(slices())
    rig.expect("stranger -> vip:80 = refused")


@kube_proxy("6.1-24")
def test_ip_mode(rig):
    """A load balancer in mode Proxy wants to see the packets itself."""
    rig.given(balanced(balancer=["real-balancer"], ip_mode="Proxy"), slices("pod-1-1"))
    rig.expect("pod-1-3 -> real-balancer:80 = client:80")
    rig.add(balanced(balancer=["real-balancer"], ip_mode="VIP"))
    rig.expect("pod-1-3 -> real-balancer:80 = pod-1-1 masqueraded")
    rig.add(balanced(balancer=["real-balancer"], ip_mode="Proxy"))
    rig.expect("pod-1-3 -> real-balancer:80 = client:80")
    rig.add(balanced(balancer=["real-balancer"]))
    rig.expect("pod-1-3 -> real-balancer:80 = pod-1-1 masqueraded")


@kube_proxy("6.2-42", "6.1-29")
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_types_and_ports_change(rig, protocol):
    def made(number=80, node=None, **spec):
        return service(ports=[port(number, protocol.upper(), node=node)], **spec)

    prefix = "" if protocol == "tcp" else f"{protocol}/"
    rig.given(made(), slices("pod-1-1", ports=[port(8080, protocol.upper())]))
    rig.expect(f"pod-1-3 -> {prefix}cluster-ip:80 = pod-1-1")
    for change, reached in (
        (made(node=30080, type="NodePort"), ["node-1:30080"]),
        (made(node=30081, type="NodePort"), ["node-1:30081"]),
        (made(node=30081, type="LoadBalancer", balancer=["vip"]), ["node-1:30081", "vip:80"]),
        (made(81, node=30081, type="LoadBalancer", balancer=["vip"]), ["node-1:30081", "vip:81"]),
        (made(81, node=30081, type="LoadBalancer", balancer=["vip-2"]), ["node-1:30081", "vip-2:81"]),
        (made(81), []),
    ):
        rig.add(change)
        nobody = {"node-1:30080": "node-1:30080", "node-1:30081": "node-1:30081"}
        nobody |= dict.fromkeys(["vip:80", "vip:81", "vip-2:81"], "dropped")
        outcomes = {**nobody, **dict.fromkeys(reached, "pod-1-1 masqueraded")}
        rig.expect("\n".join(f"client -> {prefix}{target} = {outcome}" for target, outcome in outcomes.items()))


@kube_proxy("6.2-45")
def test_a_load_balancer_without_node_ports_then_with(rig):
    rig.given(balanced(ports=[port(80)], allocateLoadBalancerNodePorts=False), slices("pod-1-1"))
    rig.expect("""
        client -> vip:80       = pod-1-1 masqueraded
        client -> node-1:30080 = node-1:30080
    """)
    rig.add(balanced(allocateLoadBalancerNodePorts=True))
    rig.expect("""
        client -> vip:80       = pod-1-1 masqueraded
        client -> node-1:30080 = pod-1-1 masqueraded
    """)


@kube_proxy("6.2-11")
def test_external_addresses_of_the_node_and_beyond_it(rig):
    """One that is on no node is served where it is routed to; one that the node has is served there."""
    rig.given(service(external=["external-ip", "second"]), slices("pod-1-1", "pod-2-1"))
    rig.expect("""
        client -> external-ip:80 = pod-1-1 pod-2-1 masqueraded
        client -> second:80      = pod-1-1 pod-2-1 masqueraded
        node-1 -> external-ip:80 = pod-1-1 pod-2-1 masqueraded
    """)
    rig.add(service())
    rig.expect("client -> external-ip:80 = dropped")


@kube_proxy("gap 5.6-2")
def test_external_addresses_outside_of_the_allowed_ranges_stay_what_they_are(rig):
    """Nobody who may write Services takes over an address out there (CVE-2020-8554)."""
    allowed = tuple(CROWD_NETWORKS.values())
    rig.given(
        balanced(external=["real-balancer"], balancer=["vip"]),
        slices("pod-1-1"),
        options={"external_ranges": allowed},
    )
    rig.expect("""
        pod-1-3 -> real-balancer:80 = client:80
        client  -> vip:80           = dropped
        pod-1-3 -> cluster-ip:80    = pod-1-1
    """)


@kube_proxy("6.2-47")
def test_a_rolling_update_interrupts_nobody(rig):
    """Who is connected stays connected while its endpoint terminates, and every new connection finds somebody."""
    for policy in ("Cluster", "Local"):
        rig.given(balanced(externalTrafficPolicy=policy), slices("pod-1-1", "pod-2-1"))
        held = rig.call("client", "vip", 80, count=8)
        for ready, leaving in (("pod-1-2", "pod-1-1"), ("pod-2-2", "pod-2-1")):
            rig.add(slices(*dict.fromkeys(["pod-1-2", ready]), endpoint(leaving, ready=False, terminating=True)))
            new = rig.call("client", "vip", 80, count=24)
            assert {call.outcome for call in new} <= {"pod-1-2", "pod-2-2"}
            assert all(rig.board.echo(call, b"hello", within_s=ANSWER_WITHIN_S) == 5 for call in held)
        rig.add(slices("pod-1-2", "pod-2-2"))
        assert all(rig.board.echo(call, b"hello", within_s=ANSWER_WITHIN_S) == 5 for call in held)
