"""Who is masqueraded: every kind of caller, address and policy, by every way to tell pods (kube-proxy's matrix)."""

import pytest
from disturbances import marking
from manifests import port, service, slices
from under_test import IPTABLES

from controlloop.family import Family

kube_proxy = pytest.mark.kube_proxy

BOTH = ["pod-1-1", "pod-2-1"]
"""One on this node and one on the other."""

# Columns: by default; nobody can tell pods; masqueradeAll; both. `any`: lands on both endpoints. M: masqueraded.
MATRIX = """
    pod-1-3    cluster-ip:80      any       any       any M     any M
    pod-1-3    cluster-ip-2:80    any       any       any M     any M
    pod-1-3    cluster-ip-3:80    local     local     local M   local M
    pod-1-3    node-1:30080       any M     any M     any M     any M
    pod-1-3    node-1:30081       any       local     any       local
    pod-1-3    node-1:30082       any M     any M     any M     any M
    pod-1-3    vip:80             any M     any M     any M     any M
    pod-1-3    vip-2:80           any       local     any       local
    pod-1-3    vip-3:80           any M     any M     any M     any M
    node-1     cluster-ip:80      any M     any       any M     any M
    node-1     cluster-ip-2:80    any M     any       any M     any M
    node-1     cluster-ip-3:80    local M   local     local M   local M
    node-1     node-1:30080       any M     any M     any M     any M
    node-1     node-1:30081       any M     any M     any M     any M
    node-1     node-1:30082       any M     any M     any M     any M
    node-1     vip:80             any M     any M     any M     any M
    node-1     vip-2:80           any M     any M     any M     any M
    node-1     vip-3:80           any M     any M     any M     any M
    localhost  localhost:30080    any M     any M     any M     any M
    localhost  localhost:30081    any M     any M     any M     any M
    localhost  localhost:30082    any M     any M     any M     any M
    client     cluster-ip:80      any M     any       any M     any M
    client     cluster-ip-2:80    any M     any       any M     any M
    client     cluster-ip-3:80    local M   local     local M   local M
    client     node-1:30080       any M     any M     any M     any M
    client     node-1:30081       local     local     local     local
    client     node-1:30082       any M     any M     any M     any M
    client     vip:80             any M     any M     any M     any M
    client     vip-2:80           local     local     local     local
    client     vip-3:80           any M     any M     any M     any M
"""
CONFIGURATIONS = {
    "default": {},
    "no-detector": {"pods": None},
    "masquerade-all": {"masquerade_all": True},
    "masquerade-all-no-detector": {"masquerade_all": True, "pods": None},
}
LANDS = {
    "any": "pod-1-1 pod-2-1",
    "any M": "pod-1-1 pod-2-1 masqueraded",
    "local": "pod-1-1",
    "local M": "pod-1-1 masqueraded",
}


def three_services():
    """Plain, externalTrafficPolicy Local, internalTrafficPolicy Local."""
    policies = [{}, {"externalTrafficPolicy": "Local"}, {"internalTrafficPolicy": "Local"}]
    for number, policy in enumerate(policies):
        suffix = f"-{number + 1}" if number else ""
        name, ports = f"web{suffix}", [port(node=30080 + number)]
        at, vip = f"cluster-ip{suffix}", f"vip{suffix}"
        yield service(name, at, type="LoadBalancer", ports=ports, balancer=[vip], **policy)
        yield slices(*BOTH, of=name)


def served_on_loopback(rig, family):
    return rig.variant in IPTABLES and family is Family.V4


def matrix(rig, column, family):
    """The rows of one column; node ports on loopback, where they are not served, reach the node itself."""
    for line in MATRIX.strip().splitlines():
        caller, target, *outcomes = (word.strip() for word in line.split("  ") if word.strip())
        if caller == "localhost" and not served_on_loopback(rig, family):
            yield f"{caller} -> {target} = node-1:{target.rpartition(':')[2]}"
        else:
            yield f"{caller} -> {target} = {LANDS[outcomes[column]]}"


@kube_proxy("6.1-18", "6.1-13", "6.1-14", "6.2-20")
@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_matrix(rig, configuration, family):
    rig.given(*three_services(), **CONFIGURATIONS[configuration])
    rig.expect("\n".join(matrix(rig, list(CONFIGURATIONS).index(configuration), family)), [family])


@kube_proxy("6.1-47")
@pytest.mark.parametrize("pods", ["cidr", "node-cidr", "bridge", "prefix"])
def test_each_way_to_tell_pods(rig, pods):
    """A pod of another node comes in like any stranger, unless all pods are known by their addresses."""
    local = service("local", "cluster-ip-2", type="NodePort", ports=[port(node=30080)], externalTrafficPolicy="Local")
    rig.given(service(), slices("pod-1-1"), local, slices(*BOTH, of="local"), pods=pods)
    rig.expect(f"""
        pod-1-3 -> cluster-ip:80 = pod-1-1
        node-1  -> cluster-ip:80 = pod-1-1 masqueraded
        client  -> cluster-ip:80 = pod-1-1 masqueraded
        pod-1-3 -> node-1:30080  = pod-1-1 pod-2-1
        client  -> node-1:30080  = pod-1-1
        node-1  -> node-1:30080  = pod-1-1 pod-2-1 masqueraded
        pod-2-3 -> cluster-ip:80 = pod-1-1{"" if pods == "cidr" else " masqueraded"}
    """)


@kube_proxy("6.1-18")
def test_what_is_no_service_is_never_masqueraded(rig):
    rig.given(*three_services(), masquerade_all=True)
    rig.expect("""
        pod-1-3 -> pod-2-1:8080     = pod-2-1
        pod-1-3 -> udp/pod-2-1:8080 = pod-2-1
        client  -> pod-1-1:8080     = pod-1-1
        client  -> pod-2-1:8080     = pod-2-1
        node-1  -> pod-2-1:8080     = pod-2-1
        pod-1-3 -> real-balancer:80 = client:80
    """)


@kube_proxy("6.1-12")
@pytest.mark.parametrize("bit", [0, 14, 31])
def test_the_mark_is_one_bit_and_gone_afterwards(rig, bit):
    """Whoever marks packets with other bits finds them as they were, and ours nowhere behind the last hook."""
    rig.given(service(), slices("pod-1-1", "pod-2-1"), masquerade_bit=bit)
    other = 1 << (bit + 7) % 32
    with marking(rig.board.network, other) as marks_seen:
        rig.expect("""
            client -> cluster-ip:80  = pod-1-1 pod-2-1 masqueraded
            client -> pod-1-1:8080   = pod-1-1
        """)
        assert marks_seen() == {other}


def test_a_change_of_the_surroundings_holds_for_what_is_there(rig):
    rig.given(service(), slices("pod-1-1"))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1")
    rig.surround(masquerade_all=True)
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1 masqueraded")
    rig.surround(pods=None)
    rig.expect("client -> cluster-ip:80 = pod-1-1")
    rig.surround(pods="bridge", masquerade_bit=3)
    rig.expect("""
        pod-1-3 -> cluster-ip:80 = pod-1-1
        client  -> cluster-ip:80 = pod-1-1 masqueraded
    """)
