"""Session affinity: a client stays at its endpoint as long as it comes back in time and the endpoint is there."""

import time

import pytest
from deadline import eventually
from manifests import endpoint, port, service, slices
from network import CROWD_NETWORKS

from controlloop.family import Family

kube_proxy = pytest.mark.kube_proxy
both_families = pytest.mark.parametrize("family", Family)

THREE = ("pod-1-1", "pod-1-2", "pod-2-1")
AFFINITY_S = 1
"""The shortest there is."""


@pytest.fixture(autouse=True)
def _nobody_is_known(rig):
    rig.given()


def affine(timeout_s=None, **spec):
    config = {} if timeout_s is None else {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": timeout_s}}}
    made = {"type": "NodePort", "ports": [port(node=30080)], "sessionAffinity": "ClientIP", **config, **spec}
    return service(**made)


def crowd(family, count):
    return [CROWD_NETWORKS[family][number] for number in range(1, count + 1)]


@kube_proxy("6.2-15", "6.2-38")
@both_families
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_client_stays(rig, family, protocol):
    """At a ClusterIP and at a node port alike, and each client for itself."""
    target_port = port(8080, protocol.upper())
    rig.given(affine(ports=[port(80, protocol.upper(), node=30080)]), slices(*THREE, ports=[target_port]))
    clients = crowd(family, 40)
    first = rig.landed(clients, protocol=protocol)
    assert set(first) == set(THREE)
    assert rig.landed(clients, protocol=protocol) == first
    assert rig.landed(clients, "node-1", 30080, protocol=protocol) == first
    counts = rig.spread("pod-1-3", "cluster-ip", 80, protocol=protocol, family=family, count=20)
    assert len(counts) == 1


@kube_proxy("6.2-15")
@both_families
def test_affinity_on_and_off(rig, family):
    rig.given(service(), slices(*THREE))
    assert len(rig.spread("pod-1-3", "cluster-ip", 80, family=family, count=54)) == 3
    rig.add(affine())
    assert len(rig.spread("pod-1-3", "cluster-ip", 80, family=family, count=54)) == 1
    rig.add(service())
    assert len(rig.spread("pod-1-3", "cluster-ip", 80, family=family, count=54)) == 3


@kube_proxy("6.2-15")
@both_families
def test_who_comes_back_late_is_nobodys_client(rig, family):
    """Clients of the crowd come back one by one, until one of them finds another endpoint: by then the time was over.
    Meanwhile one client comes all the time, and each of its connections extends its own time.
    """
    rig.given(affine(timeout_s=AFFINITY_S), slices(*THREE))
    steady, *crowded = crowd(family, 2000)
    waiting = dict(zip(crowded, rig.landed(crowded), strict=True))
    began, home = time.monotonic(), rig.landed([steady])

    def somebody_moved():
        nonlocal began, home
        before, began = began, time.monotonic()
        here = rig.landed([steady])
        # A machine that stands still for a second makes a newcomer of it, too.
        if time.monotonic() - before < AFFINITY_S:
            assert here == home
        home = here
        client, there = waiting.popitem()
        return rig.landed([client]) != [there]

    eventually(somebody_moved)


@kube_proxy("gap 5.1-5", "gap 5.7-6")
@both_families
def test_clients_of_an_endpoint_that_goes_find_others_and_stay_there(rig, family):
    """Also when it comes back: what was remembered of it is gone."""
    rig.given(affine(), slices(*THREE))
    clients = crowd(family, 60)
    before = dict(zip(clients, rig.landed(clients), strict=True))
    rig.add(slices("pod-1-1", "pod-1-2", endpoint("pod-2-1", ready=False)))
    after = dict(zip(clients, rig.landed(clients), strict=True))
    assert "pod-2-1" not in after.values()
    assert all(after[client] == home for client, home in before.items() if home != "pod-2-1")
    rig.add(slices(*THREE))
    assert dict(zip(clients, rig.landed(clients), strict=True)) == after
    newcomers = [CROWD_NETWORKS[family][number] for number in range(1000, 1060)]
    assert set(rig.landed(newcomers)) == set(THREE)


@kube_proxy("extra-6", "gap 5.1-5")
def test_more_than_ten_thousand_clients(rig):
    rig.given(affine(ports=[port(80, "UDP", node=30080)]), slices(*THREE, ports=[port(8080, "UDP")]))
    clients = crowd(Family.V4, 10_500)
    first = rig.landed(clients, protocol="udp")
    assert set(first) == set(THREE)
    assert rig.landed(clients, protocol="udp") == first


@kube_proxy("6.2-44")
@both_families
def test_affinity_and_external_policy(rig, family):
    """Policy Local has fewer endpoints to offer, and a client that had another one gets one of them."""

    def made(policy):
        return affine(type="LoadBalancer", balancer=["vip"], externalTrafficPolicy=policy)

    rig.given(made("Cluster"), slices(*THREE))
    clients = crowd(family, 60)
    anywhere = rig.landed(clients, "vip", 80)
    assert set(anywhere) == set(THREE)
    rig.add(made("Local"))
    here = rig.landed(clients, "vip", 80)
    assert set(here) == {"pod-1-1", "pod-1-2"}
    assert rig.landed(clients, "vip", 80) == here
    assert all(now == home for home, now in zip(anywhere, here, strict=True) if home != "pod-2-1")
    rig.add(made("Cluster"))
    assert rig.landed(clients, "vip", 80) == here


@kube_proxy("6.2-15")
@pytest.mark.parametrize("how", ["round-robin", "weighted", "random"])
def test_affinity_with_each_balance(rig, how):
    """The balance decides for a client that is new."""
    rig.given(affine(annotations={"nodenet.io/balance": how}), slices(*THREE))
    clients = crowd(Family.V4, 60)
    first = rig.landed(clients)
    assert set(first) == set(THREE)
    assert rig.landed(clients) == first
    if how == "round-robin":
        assert all(first.count(pod) == 20 for pod in THREE)


@kube_proxy("6.2-15")
def test_two_ports_of_a_service_remember_apart(rig):
    rig.given(
        affine(ports=[port(80, name="http"), port(81, name="admin")], type="ClusterIP"),
        slices(*THREE, ports=[port(8080, name="http"), port(8081, name="admin")]),
    )
    clients = crowd(Family.V4, 60)
    http, admin = rig.landed(clients), rig.landed(clients, port=81)
    assert [f"{home}:8081" for home in http] != admin
    assert rig.landed(clients) == http
    assert rig.landed(clients, port=81) == admin


@kube_proxy("6.2-15")
def test_a_service_with_affinity_that_has_nobody(rig):
    rig.given(affine())
    rig.expect("""
        pod-1-3 -> cluster-ip:80 = refused
        client  -> node-1:30080  = refused
    """)
    rig.add(slices("pod-1-1"))
    rig.expect("""
        pod-1-1 -> cluster-ip:80 = pod-1-1
        pod-1-3 -> cluster-ip:80 = pod-1-1
        client  -> node-1:30080  = pod-1-1 masqueraded
    """)
