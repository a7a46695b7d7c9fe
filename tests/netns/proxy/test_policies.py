"""Which endpoints serve: policies, endpoints that terminate, and hints of the topology."""

import pytest
from manifests import endpoint, port, service, slices
from tables import ANSWER_WITHIN_S

kube_proxy = pytest.mark.kube_proxy

READY = {"ready": True}
LEAVING = {"ready": False, "serving": True, "terminating": True}
"""Terminates and still serves."""
LEFT = {"ready": False, "serving": False, "terminating": True}


def balanced(**spec):
    return service(type="LoadBalancer", ports=[port(node=30080)], balancer=["vip"], **spec)


def endpoints(**conditions):
    """Pods by name, with `_` for `-`."""
    return slices(*(endpoint(pod.replace("_", "-"), **each) for pod, each in conditions.items()))


@kube_proxy("6.1-15", "6.2-19")
def test_internal_policy(rig):
    local = service(internalTrafficPolicy="Local")
    rig.given(service(internalTrafficPolicy="Cluster"), slices("pod-1-1", "pod-2-1"))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1 pod-2-1")
    rig.add(local)
    rig.expect("""
        pod-1-3 -> cluster-ip:80 = pod-1-1
        node-1  -> cluster-ip:80 = pod-1-1 masqueraded
        client  -> cluster-ip:80 = pod-1-1 masqueraded
    """)
    rig.add(slices("pod-1-1", "pod-1-2", "pod-2-1"))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1 pod-1-2")
    rig.add(slices("pod-2-1"))
    rig.expect("""
        pod-1-3 -> cluster-ip:80 = dropped
        node-1  -> cluster-ip:80 = dropped
        client  -> cluster-ip:80 = dropped
    """)
    rig.add(slices())
    rig.expect("""
        pod-1-3 -> cluster-ip:80 = refused
        node-1  -> cluster-ip:80 = refused
    """)


@kube_proxy("6.1-15", "6.2-19")
def test_internal_policy_says_nothing_of_external_addresses(rig):
    rig.given(balanced(internalTrafficPolicy="Local"), slices("pod-2-1"))
    rig.expect("""
        pod-1-3 -> cluster-ip:80 = dropped
        client  -> vip:80        = pod-2-1 masqueraded
        pod-1-3 -> vip:80        = pod-2-1 masqueraded
        client  -> node-1:30080  = pod-2-1 masqueraded
    """)
    rig.add(balanced(internalTrafficPolicy="Local", externalTrafficPolicy="Local"))
    rig.expect("""
        pod-1-3 -> cluster-ip:80 = dropped
        client  -> vip:80        = dropped
        pod-1-3 -> vip:80        = pod-2-1
        node-1  -> vip:80        = pod-2-1 masqueraded
    """)


@kube_proxy("6.2-19", "6.2-38")
def test_internal_policy_and_the_host_network(rig):
    rig.given(service(internalTrafficPolicy="Local"), slices("node-1", "node-2"))
    rig.expect("""
        pod-1-3 -> cluster-ip:80 = node-1
        node-1  -> cluster-ip:80 = node-1
    """)


@kube_proxy("6.1-16", "6.2-22")
def test_terminating_endpoints_under_external_policy_local(rig):
    rig.given(
        balanced(externalTrafficPolicy="Local"),
        endpoints(pod_1_1=READY, pod_1_2=LEAVING, pod_2_1=READY, pod_2_2=LEAVING),
    )
    rig.expect("""
        client  -> vip:80        = pod-1-1
        client  -> node-1:30080  = pod-1-1
        pod-1-3 -> cluster-ip:80 = pod-1-1 pod-2-1
    """)
    rig.add(endpoints(pod_1_1=LEAVING, pod_1_2=LEFT, pod_2_1=LEAVING))
    rig.expect("""
        client  -> vip:80        = pod-1-1
        pod-1-3 -> vip:80        = pod-1-1 pod-2-1
        pod-1-3 -> cluster-ip:80 = pod-1-1 pod-2-1
    """)
    rig.add(endpoints(pod_1_1=LEFT, pod_2_1=READY))
    rig.expect("""
        client  -> vip:80        = dropped
        pod-1-3 -> cluster-ip:80 = pod-2-1
    """)
    rig.add(endpoints(pod_1_1=LEFT, pod_2_1=LEAVING))
    rig.expect("""
        client  -> vip:80        = dropped
        client  -> node-1:30080  = dropped
        pod-1-3 -> vip:80        = pod-2-1
        pod-1-3 -> cluster-ip:80 = pod-2-1
    """)
    rig.add(endpoints(pod_1_1=LEFT, pod_2_1=LEFT))
    rig.expect("pod-1-3 -> cluster-ip:80 = refused")
    rig.add(slices())
    rig.expect("""
        client  -> vip:80        = refused
        pod-1-3 -> cluster-ip:80 = refused
    """)


@kube_proxy("6.1-17", "6.2-22")
def test_terminating_endpoints_under_policy_cluster(rig):
    rig.given(balanced(), endpoints(pod_1_1=READY, pod_1_2=LEAVING, pod_2_1=READY, pod_2_2=LEAVING))
    rig.expect("""
        client  -> vip:80        = pod-1-1 pod-2-1 masqueraded
        pod-1-3 -> cluster-ip:80 = pod-1-1 pod-2-1
    """)
    rig.add(endpoints(pod_1_1=LEAVING, pod_1_2=LEFT, pod_2_1=LEAVING))
    rig.expect("""
        client  -> vip:80        = pod-1-1 pod-2-1 masqueraded
        pod-1-3 -> cluster-ip:80 = pod-1-1 pod-2-1
    """)
    rig.add(endpoints(pod_1_1=LEFT, pod_2_1=LEAVING))
    rig.expect("""
        client  -> vip:80        = pod-2-1 masqueraded
        pod-1-3 -> cluster-ip:80 = pod-2-1
    """)
    for unusable in (endpoints(pod_1_1=LEFT, pod_2_1=LEFT), slices()):
        rig.add(unusable)
        rig.expect("""
            client  -> vip:80        = refused
            pod-1-3 -> cluster-ip:80 = refused
        """)


@kube_proxy("6.2-22")
def test_terminating_endpoints_under_internal_policy_local(rig):
    rig.given(service(internalTrafficPolicy="Local"), endpoints(pod_1_1=LEAVING, pod_1_2=READY, pod_2_1=READY))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-2")
    rig.add(endpoints(pod_1_1=LEAVING, pod_1_2=LEFT, pod_2_1=READY))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1")


@kube_proxy("6.2-54", "gap 5.2-1")
def test_a_terminating_endpoint_keeps_its_connections(rig):
    rig.given(service(), slices("pod-1-1"))
    (held,) = rig.call("pod-1-3", "cluster-ip", 80)
    rig.add(endpoints(pod_1_1=LEAVING, pod_2_1=READY))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-2-1")
    assert rig.board.echo(held, b"still there", within_s=ANSWER_WITHIN_S) == len(b"still there")
    rig.add(slices("pod-2-1"))
    assert rig.board.echo(held, b"still there", within_s=ANSWER_WITHIN_S) == len(b"still there")


def in_zone(*zones):
    return {"hints": {"forZones": [{"name": zone} for zone in zones]}}


def on_node(*nodes, zone=None):
    zones = in_zone(zone)["hints"] if zone else {}
    return {"hints": {"forNodes": [{"name": node} for node in nodes], **zones}}


@kube_proxy("6.1-35", "6.2-50")
def test_hints_of_zones(rig):
    hinted = endpoints(pod_1_1=in_zone("zone-a"), pod_1_2=in_zone("zone-b"), pod_2_1=in_zone("zone-a", "zone-b"))
    rig.given(service(), hinted)
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1 pod-2-1")
    rig.move_to_zone("zone-b")
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-2 pod-2-1")
    for unheard_of in ("zone-c", ""):
        rig.move_to_zone(unheard_of)
        rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1 pod-1-2 pod-2-1")


@kube_proxy("6.1-35", "6.2-50", "gap 5.1-6")
def test_hints_that_not_every_endpoint_has_are_no_hints(rig):
    rig.given(service(), endpoints(pod_1_1=in_zone("zone-a"), pod_1_2={}, pod_2_1=in_zone("zone-b")))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1 pod-1-2 pod-2-1")
    rig.add(endpoints(pod_1_1=in_zone("zone-a"), pod_1_2={"ready": False}, pod_2_1=in_zone("zone-b")))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1")


@kube_proxy("6.1-35", "6.2-50")
def test_hints_of_nodes(rig):
    """With a way back to the zone, and to everybody, when the endpoint here goes."""
    here = on_node("node-1", zone="zone-a")
    there = on_node("node-2", zone="zone-a")
    far = on_node("node-3", zone="zone-b")
    rig.given(service(), endpoints(pod_1_1=here, pod_2_1=there, pod_2_2=far))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1")
    rig.add(endpoints(pod_2_1=there, pod_2_2=far))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-2-1")
    rig.add(endpoints(pod_2_2=far))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-2-2")


@kube_proxy("6.1-35")
def test_hints_and_policy_local(rig):
    """Local means the endpoints here, wherever hints would send us."""
    hinted = endpoints(pod_1_1=in_zone("zone-b"), pod_2_1=in_zone("zone-a"))
    rig.given(balanced(externalTrafficPolicy="Local"), hinted)
    rig.expect("""
        client  -> vip:80        = pod-1-1
        pod-1-3 -> cluster-ip:80 = pod-2-1
        pod-1-3 -> vip:80        = pod-2-1
    """)
    rig.add(balanced(internalTrafficPolicy="Local"))
    rig.expect("""
        client  -> vip:80        = pod-2-1 masqueraded
        pod-1-3 -> cluster-ip:80 = pod-1-1
    """)


@kube_proxy("6.1-35")
def test_terminating_endpoints_are_the_last_resort_whatever_their_hints(rig):
    rig.given(service(), endpoints(pod_1_1={**in_zone("zone-b"), **LEAVING}, pod_2_1={**in_zone("zone-a"), **LEFT}))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1")
