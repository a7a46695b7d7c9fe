"""ClusterIPs: who lands where, as Services and their endpoints come, change and go."""

import pytest
from manifests import endpoint, port, service, slices
from network import ADDRESSES

from controlloop.family import Family

kube_proxy = pytest.mark.kube_proxy

THREE_PROTOCOLS = [port(80, protocol, name=protocol.lower()) for protocol in ("TCP", "UDP", "SCTP")]
THREE_TARGETS = [port(8080, protocol, name=protocol.lower()) for protocol in ("TCP", "UDP", "SCTP")]


def unserved(rig):
    """What becomes of calls to a ClusterIP at a port that the Service does not have. kube-proxy's iptables mode leaves
    them to the routes, which here lead to the client, who has no use for them."""
    return "refused" if rig.mode == "nftables" else "dropped"


@kube_proxy("6.1-3", "6.2-35")
def test_each_protocol(rig):
    rig.given(service(ports=THREE_PROTOCOLS), slices("pod-1-1", "pod-2-1", ports=THREE_TARGETS))
    rig.expect("""
        pod-1-3 -> cluster-ip:80      = pod-1-1 pod-2-1
        pod-1-3 -> udp/cluster-ip:80  = pod-1-1 pod-2-1
        pod-1-3 -> sctp/cluster-ip:80 = pod-1-1 pod-2-1
        node-1  -> cluster-ip:80      = pod-1-1 pod-2-1 masqueraded
        node-1  -> udp/cluster-ip:80  = pod-1-1 pod-2-1 masqueraded
        node-1  -> sctp/cluster-ip:80 = pod-1-1 pod-2-1 masqueraded
        client  -> cluster-ip:80      = pod-1-1 pod-2-1 masqueraded
        client  -> udp/cluster-ip:80  = pod-1-1 pod-2-1 masqueraded
        client  -> sctp/cluster-ip:80 = pod-1-1 pod-2-1 masqueraded
        pod-1-1 -> cluster-ip:80      = pod-1-1 pod-2-1
        pod-1-1 -> udp/cluster-ip:80  = pod-1-1 pod-2-1
        pod-1-1 -> sctp/cluster-ip:80 = pod-1-1 pod-2-1
    """)


@kube_proxy("6.1-3", "6.2-5")
def test_a_pod_reaches_itself_through_its_service(rig):
    """It must see another address than its own: every row of a pod that lands on itself is judged so."""
    rig.given(service(ports=THREE_PROTOCOLS), slices("pod-1-1", ports=THREE_TARGETS))
    rig.expect("""
        pod-1-1 -> cluster-ip:80      = pod-1-1
        pod-1-1 -> udp/cluster-ip:80  = pod-1-1
        pod-1-1 -> sctp/cluster-ip:80 = pod-1-1
        pod-1-2 -> cluster-ip:80      = pod-1-1
    """)


@kube_proxy("6.1-3", "6.2-23", "6.2-24")
def test_one_number_in_three_protocols_is_three_ports(rig):
    rig.given(
        service(ports=THREE_PROTOCOLS, balancer=["vip"], type="LoadBalancer"),
        slices("pod-1-1", name="web-tcp", ports=[port(8080, "TCP", name="tcp")]),
        slices("pod-1-2", name="web-udp", ports=[port(8081, "UDP", name="udp")]),
        slices("pod-2-1", name="web-sctp", ports=[port(8082, "SCTP", name="sctp")]),
    )
    rig.expect("""
        pod-1-3 -> cluster-ip:80      = pod-1-1
        pod-1-3 -> udp/cluster-ip:80  = pod-1-2:8081
        pod-1-3 -> sctp/cluster-ip:80 = pod-2-1:8082
        pod-1-3 -> vip:80             = pod-1-1 masqueraded
        pod-1-3 -> udp/vip:80         = pod-1-2:8081 masqueraded
        pod-1-3 -> sctp/vip:80        = pod-2-1:8082 masqueraded
    """)


@kube_proxy("6.1-4")
def test_what_a_service_does_not_have_is_not_served(rig):
    rig.given(
        service("one", "cluster-ip", ports=[port(80)]),
        slices("pod-1-1", of="one"),
        service("two", "cluster-ip-2", ports=[port(81, "UDP")]),
        slices("pod-1-2", of="two", ports=[port(8080, "UDP")]),
    )
    rig.expect(f"""
        pod-1-3 -> cluster-ip:80       = pod-1-1
        pod-1-3 -> udp/cluster-ip-2:81 = pod-1-2
        pod-1-3 -> udp/cluster-ip:80   = {unserved(rig)}
        pod-1-3 -> cluster-ip-2:81     = {unserved(rig)}
        pod-1-3 -> cluster-ip-2:80     = {unserved(rig)}
        pod-1-3 -> udp/cluster-ip:81   = {unserved(rig)}
        node-1  -> cluster-ip-2:80     = {unserved(rig)}
        client  -> cluster-ip-2:80     = {unserved(rig)}
    """)


@kube_proxy("6.1-4", "gap 5.5-5")
@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("caller", ["pod-1-3", "node-1", "client"])
def test_a_ping_to_a_cluster_ip(rig, caller, family):
    """No ClusterIP answers a ping. In nftables mode the caller hears so at once."""
    rig.given(service(), slices("pod-1-1"))
    refused, heard = rig.ping(caller, ADDRESSES["cluster-ip"][family])
    assert not heard
    assert refused == (rig.mode == "nftables")


@kube_proxy("6.1-4", "6.2-49", "6.1-28", "extra-9", "gap 3.9-2")
def test_addresses_that_no_service_has(rig):
    """In nftables mode what is in a ServiceCIDR stays in the cluster, also in one that is new."""
    rig.given(service(), slices("pod-1-1"), service_cidrs=())
    gets_out = """
        pod-1-3 -> unallocated:80 = client:80
        node-1  -> unallocated:80 = client:80
        pod-1-3 -> cluster-ip:80  = pod-1-1
    """
    rig.expect(gets_out)
    rig.surround(service_cidrs=rig.service_cidrs)
    if rig.mode == "nftables":
        rig.expect("""
            pod-1-3 -> unallocated:80     = dropped
            node-1  -> unallocated:80     = dropped
            pod-1-3 -> udp/unallocated:80 = dropped
            pod-1-3 -> cluster-ip:80      = pod-1-1
        """)
    else:
        rig.expect(gets_out)
    rig.surround(service_cidrs=())
    rig.expect(gets_out)


@kube_proxy("6.1-2", "6.2-18")
def test_no_endpoints(rig):
    ports = [port(80, protocol, name=protocol.lower(), node=30080) for protocol in ("TCP", "UDP", "SCTP")]
    rig.given(service(type="LoadBalancer", ports=ports, external=["external-ip"], balancer=["vip"]))
    rig.expect("""
        pod-1-3 -> cluster-ip:80       = refused
        node-1  -> cluster-ip:80       = refused
        client  -> cluster-ip:80       = refused
        pod-1-3 -> node-1:30080        = refused
        client  -> node-1:30080        = refused
        node-1  -> node-1:30080        = refused
        pod-1-3 -> external-ip:80      = refused
        client  -> external-ip:80      = refused
        pod-1-3 -> vip:80              = refused
        client  -> vip:80              = refused
        node-1  -> vip:80              = refused
        pod-1-3 -> udp/cluster-ip:80   = refused
        node-1  -> udp/cluster-ip:80   = refused
        client  -> udp/cluster-ip:80   = refused
        pod-1-3 -> udp/node-1:30080    = refused
        client  -> udp/node-1:30080    = refused
        client  -> udp/external-ip:80  = refused
        client  -> udp/vip:80          = refused
        pod-1-3 -> sctp/cluster-ip:80  = refused
        client  -> sctp/cluster-ip:80  = refused
        client  -> sctp/node-1:30080   = refused
        client  -> sctp/vip:80         = refused
    """)


@kube_proxy("6.2-1", "6.1-31", "6.1-20", "6.2-37")
def test_a_service_follows_its_pods(rig):
    rig.given(service())
    rig.expect("pod-1-3 -> cluster-ip:80 = refused")
    rig.add(slices("pod-1-1"))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1")
    rig.add(slices("pod-1-1", "pod-2-1"))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1 pod-2-1")
    rig.add(slices("pod-1-2", name="web-more"))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1 pod-1-2 pod-2-1")
    rig.add(slices("pod-2-1"))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-2 pod-2-1")
    rig.remove(slices("pod-1-2", name="web-more"))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-2-1")
    rig.add(slices())
    rig.expect("pod-1-3 -> cluster-ip:80 = refused")


@kube_proxy("6.1-20", "6.1-31")
def test_endpoints_before_the_service_an_address_in_two_slices_and_one_that_moves(rig):
    rig.given(slices("pod-1-1"))
    rig.add(service())
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1")
    rig.add(slices("pod-1-1", "pod-2-1", name="web-more"))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1 pod-2-1")
    assert min(rig.spread("pod-1-3", "cluster-ip", 80, count=400).values()) > 150, "one address counts once"
    rig.remove(slices(name="web"))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1 pod-2-1")


@kube_proxy("6.2-2", "6.2-28", "6.2-26")
def test_several_ports_each_with_its_own_pod(rig):
    ports = [port(80, name="http"), port(81, name="admin"), port(82, name="sidecar")]
    rig.given(
        service(ports=ports),
        slices("pod-1-1", "pod-2-2", name="web-a", ports=[port(8080, name="http")]),
        slices("pod-2-1", name="web-b", ports=[port(8081, name="admin")]),
        slices("pod-1-2", name="web-c", ports=[port(8082, name="sidecar"), port(8080, name="http")]),
    )
    rig.expect("""
        pod-1-3 -> cluster-ip:80 = pod-1-1 pod-1-2 pod-2-2
        pod-1-3 -> cluster-ip:81 = pod-2-1:8081
        pod-1-3 -> cluster-ip:82 = pod-1-2:8082
    """)


@kube_proxy("6.2-3", "6.1-32")
def test_ports_come_go_and_change_their_names_and_numbers(rig):
    http, admin = port(80, name="http"), port(81, name="admin")
    rig.given(service(ports=[http]), slices("pod-1-1", ports=[port(8080, name="http"), port(8081, name="admin")]))
    rig.expect(f"""
        pod-1-3 -> cluster-ip:80 = pod-1-1
        pod-1-3 -> cluster-ip:81 = {unserved(rig)}
    """)
    rig.add(service(ports=[http, admin]))
    rig.expect("""
        pod-1-3 -> cluster-ip:80 = pod-1-1
        pod-1-3 -> cluster-ip:81 = pod-1-1:8081
    """)
    rig.add(service(ports=[port(82, name="http"), admin]))
    rig.expect(f"""
        pod-1-3 -> cluster-ip:80 = {unserved(rig)}
        pod-1-3 -> cluster-ip:81 = pod-1-1:8081
        pod-1-3 -> cluster-ip:82 = pod-1-1
    """)
    rig.add(slices("pod-1-1", ports=[port(8082, name="http"), port(8081, name="other")]))
    rig.expect("""
        pod-1-3 -> cluster-ip:81 = refused
        pod-1-3 -> cluster-ip:82 = pod-1-1:8082
    """)
    rig.add(service(ports=[port(82)]), slices("pod-1-1", ports=[port(8080)]))
    rig.expect(f"""
        pod-1-3 -> cluster-ip:81 = {unserved(rig)}
        pod-1-3 -> cluster-ip:82 = pod-1-1
    """)


@kube_proxy("6.2-27")
def test_a_named_port_that_is_another_number_in_each_pod(rig):
    rig.given(
        service(ports=[port(80, name="http")]),
        slices("pod-1-1", name="web-old", ports=[port(8080, name="http")]),
        slices("pod-2-1", name="web-new", ports=[port(8081, name="http")]),
    )
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1 pod-2-1:8081")


@kube_proxy("6.2-4", "6.2-51")
def test_between_pods_the_source_is_kept(rig):
    rig.given(service(), slices("pod-2-1"))
    rig.expect("""
        pod-1-3 -> cluster-ip:80    = pod-2-1
        pod-1-3 -> pod-2-1:8080     = pod-2-1
        pod-1-3 -> udp/pod-2-1:8080 = pod-2-1
        pod-2-3 -> pod-1-1:8080     = pod-1-1
        pod-1-3 -> pod-1-1:8080     = pod-1-1
        client  -> pod-1-1:8080     = pod-1-1
    """)


@kube_proxy("6.2-6", "6.2-7", "6.1-29")
def test_services_come_and_go_beside_each_other(rig):
    one, two, three = (service(name, at) for name, at in zip("abc", THREE_ADDRESSES, strict=True))
    rig.given(one, two, slices("pod-1-1", of="a"), slices("pod-1-2", of="b"), slices("pod-2-1", of="c"))
    rig.expect("""
        pod-1-3 -> cluster-ip:80   = pod-1-1
        pod-1-3 -> cluster-ip-2:80 = pod-1-2
        pod-1-3 -> cluster-ip-3:80 = dropped
    """)
    rig.remove(one)
    rig.add(three)
    rig.expect("""
        pod-1-3 -> cluster-ip:80   = dropped
        pod-1-3 -> cluster-ip-2:80 = pod-1-2
        pod-1-3 -> cluster-ip-3:80 = pod-2-1
    """)
    rig.add(one)
    rig.expect("""
        pod-1-3 -> cluster-ip:80   = pod-1-1
        pod-1-3 -> cluster-ip-2:80 = pod-1-2
        pod-1-3 -> cluster-ip-3:80 = pod-2-1
    """)


THREE_ADDRESSES = ("cluster-ip", "cluster-ip-2", "cluster-ip-3")


@kube_proxy("6.2-36")
def test_two_services_of_the_same_pods(rig):
    two = service("two", "cluster-ip-2")
    rig.given(service(), slices("pod-1-1", "pod-2-1"), two, slices("pod-1-1", "pod-2-1", of="two"))
    rig.expect("""
        pod-1-3 -> cluster-ip:80   = pod-1-1 pod-2-1
        pod-1-3 -> cluster-ip-2:80 = pod-1-1 pod-2-1
    """)
    rig.remove(two, slices(of="two"))
    rig.expect("""
        pod-1-3 -> cluster-ip:80   = pod-1-1 pod-2-1
        pod-1-1 -> cluster-ip:80   = pod-1-1 pod-2-1
        pod-1-3 -> cluster-ip-2:80 = dropped
    """)


@kube_proxy("6.2-13", "6.1-29")
def test_a_service_changes_its_type(rig):
    named = service(at=None, type="ExternalName", externalName="example.com")
    in_nodes = service(type="NodePort", ports=[port(node=30080)])
    rig.given(named, slices("pod-1-1"))
    rig.expect("pod-1-3 -> cluster-ip:80 = dropped")
    rig.add(service())
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1")
    rig.add(named)
    rig.expect("pod-1-3 -> cluster-ip:80 = dropped")
    rig.add(in_nodes)
    rig.expect("""
        pod-1-3 -> cluster-ip:80 = pod-1-1
        client  -> node-1:30080  = pod-1-1 masqueraded
    """)
    rig.add(named)
    rig.expect("""
        pod-1-3 -> cluster-ip:80 = dropped
        client  -> node-1:30080  = node-1:30080
    """)
    rig.add(service(clusterIP="None", clusterIPs=["None"]))
    rig.expect("pod-1-3 -> cluster-ip:80 = dropped")


@kube_proxy("6.2-14")
def test_endpoints_that_are_not_ready(rig):
    """Whether unready addresses are published decides who writes the slice: it says ready then, also of the dying."""
    rig.given(service(), slices(endpoint("pod-1-1", ready=False)))
    rig.expect("pod-1-3 -> cluster-ip:80 = refused")
    rig.add(slices(endpoint("pod-1-1", ready=True), endpoint("pod-1-2", ready=False)))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1")
    rig.add(slices(endpoint("pod-1-1", ready=True, serving=False, terminating=True)))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1")
    rig.add(slices(endpoint("pod-1-1", ready=None, serving=None, terminating=None)))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1")


@kube_proxy("6.2-16")
def test_services_of_another_proxy(rig):
    foreign = service(labels={"service.kubernetes.io/service-proxy-name": "another"})
    rig.given(foreign, slices("pod-1-1"))
    rig.expect("pod-1-3 -> cluster-ip:80 = dropped")
    rig.add(service())
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1")
    rig.add(foreign)
    rig.expect("pod-1-3 -> cluster-ip:80 = dropped")


@kube_proxy("6.2-17")
def test_headless_slices(rig):
    headless = slices("pod-1-1", labels={"service.kubernetes.io/headless": ""})
    rig.given(service(), headless)
    rig.expect("pod-1-3 -> cluster-ip:80 = refused")
    rig.add(slices("pod-1-1"))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1")
    rig.add(headless)
    rig.expect("pod-1-3 -> cluster-ip:80 = refused")


@kube_proxy("6.2-38")
def test_endpoints_on_the_host_network(rig):
    """Who is answered by its own node, or by itself, needs no masquerading to be answered."""
    rig.given(service(), slices("node-2"))
    rig.expect("""
        pod-1-3 -> cluster-ip:80 = node-2
        client  -> cluster-ip:80 = node-2 masqueraded
    """)
    rig.add(slices("node-1"))
    rig.expect("""
        pod-1-3 -> cluster-ip:80 = node-1
        client  -> cluster-ip:80 = node-1
        node-1  -> cluster-ip:80 = node-1
    """)


@kube_proxy("6.2-38")
@pytest.mark.parametrize("family", Family)
def test_large_requests(rig, family):
    """Datagrams of many fragments, and a stream of many segments."""
    rig.given(service(ports=THREE_PROTOCOLS), slices("pod-2-1", ports=THREE_TARGETS))
    for caller in ("pod-1-3", "client"):
        assert rig.echo(b"x" * 300_000, caller, "cluster-ip", 80, family=family) == 300_000
        assert rig.echo(b"x" * 30_000, caller, "cluster-ip", 80, protocol="udp", family=family) == 30_000


@kube_proxy("6.2-41")
@pytest.mark.parametrize("family", Family)
def test_services_of_one_family(rig, family):
    (other,) = set(Family) - {family}
    rig.given(service(families=[family]), slices("pod-1-1"))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1", [family])
    rig.expect("pod-1-3 -> cluster-ip:80 = dropped", [other])
    rig.add(service())
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1")
    rig.add(slices(families=[other]))
    rig.expect("pod-1-3 -> cluster-ip:80 = pod-1-1", [family])
    rig.expect("pod-1-3 -> cluster-ip:80 = refused", [other])


@kube_proxy("6.1-25")
def test_addresses_with_leading_zeros(rig):
    """They are read as decimal, as the API server has always stored them."""
    zeros = {"clusterIP": "010.096.000.080", "clusterIPs": ["010.096.000.080"], "externalIPs": ["192.000.002.001"]}
    made = service(type="LoadBalancer", families=[Family.V4], **zeros)
    made["status"] = {"loadBalancer": {"ingress": [{"ip": "203.000.113.001"}]}}
    rig.given(made, slices("pod-1-1"))
    rig.expect(
        """
        pod-1-3 -> cluster-ip:80  = pod-1-1
        client  -> external-ip:80 = pod-1-1 masqueraded
        client  -> vip:80         = pod-1-1 masqueraded
        """,
        [Family.V4],
    )
