"""Node ports: at which addresses of the node they are served, and what of loopback."""

import pytest
from manifests import port, service, slices
from network import ADDRESSES
from rig import only_iptables, only_nftables
from tables import ANSWER_WITHIN_S

from controlloop.family import Family

kube_proxy = pytest.mark.kube_proxy
both_families = pytest.mark.parametrize("family", Family)

SERVED = "pod-1-1 pod-2-1 masqueraded"
NOT_SERVED = "node-1:30080"
"""Nobody translated it: the node's own server got the call."""


def node_port(**spec):
    return service(type="NodePort", **{"ports": [port(node=30080)], **spec})


def listed(*names):
    return lambda family: frozenset(ADDRESSES[name][family] for name in names)


def expect(rig, family, *, localhost, second, gateway):
    """Every kind of caller at every kind of address."""
    rig.expect(
        f"""
        pod-1-3   -> cluster-ip:80   = pod-1-1 pod-2-1
        client    -> node-1:30080    = {SERVED}
        pod-1-3   -> node-1:30080    = {SERVED}
        node-1    -> node-1:30080    = {SERVED}
        client    -> second:30080    = {SERVED if second else NOT_SERVED}
        node-1    -> second:30080    = {SERVED if second else NOT_SERVED}
        pod-1-3   -> gateway:30080   = {SERVED if gateway else NOT_SERVED}
        localhost -> localhost:30080 = {SERVED if localhost else NOT_SERVED}
        """,
        [family],
    )


@kube_proxy("6.1-8", "6.1-9", "6.2-10", "6.2-34")
@only_iptables
@pytest.mark.parametrize(
    ("addresses", "loopback", "second", "gateway"),
    [
        pytest.param(None, True, True, True, id="default"),
        pytest.param(None, False, True, True, id="loopback-off"),
        pytest.param(("node-1", "second", "localhost"), True, True, False, id="several-and-loopback"),
        pytest.param(("node-1", "second", "localhost"), False, True, False, id="loopback-off-though-listed"),
        pytest.param(("node-1",), False, False, False, id="primary"),
    ],
)
def test_iptables_mode(rig, addresses, loopback, second, gateway):
    """Over IPv6 loopback is never served."""
    rig.given(
        node_port(),
        slices("pod-1-1", "pod-2-1"),
        node_port_addresses=addresses and listed(*addresses),
        localhost_node_ports=lambda family: loopback and family is Family.V4,
    )
    for family in Family:
        expect(rig, family, localhost=loopback and family is Family.V4, second=second, gateway=gateway)


@kube_proxy("6.1-8", "6.1-9", "6.2-10")
@only_nftables
@pytest.mark.parametrize(
    ("addresses", "second", "gateway"),
    [
        pytest.param(("node-1",), False, False, id="default"),
        pytest.param(("node-1", "second"), True, False, id="several"),
        pytest.param(None, True, True, id="all"),
    ],
)
def test_nftables_mode(rig, addresses, second, gateway):
    """Loopback is never served."""
    rig.given(node_port(), slices("pod-1-1", "pod-2-1"), node_port_addresses=addresses and listed(*addresses))
    for family in Family:
        expect(rig, family, localhost=False, second=second, gateway=gateway)


@kube_proxy("gap 3.9-4", "gap 5.5-3", "extra-10", "gap 5.7-9")
def test_the_nodes_addresses_change(rig):
    rig.given(node_port(), slices("pod-1-1", "pod-2-1"), node_port_addresses=listed("node-1"))
    rig.expect(f"client -> second:30080 = {NOT_SERVED}")
    rig.surround(node_port_addresses=listed("node-1", "second"))
    rig.expect(f"""
        client -> node-1:30080 = {SERVED}
        client -> second:30080 = {SERVED}
    """)
    rig.surround(node_port_addresses=listed("second"))
    rig.expect(f"""
        client -> node-1:30080 = {NOT_SERVED}
        client -> second:30080 = {SERVED}
    """)


@kube_proxy("6.2-12")
def test_one_number_for_two_protocols_and_a_switch_between_them(rig):
    tcp, udp = port(80, "TCP", name="tcp", node=30080), port(80, "UDP", name="udp", node=30080)
    targets = [port(8080, "TCP", name="tcp"), port(8081, "UDP", name="udp")]
    rig.given(node_port(ports=[tcp, udp]), slices("pod-1-1", ports=targets))
    rig.expect("""
        client -> node-1:30080     = pod-1-1 masqueraded
        client -> udp/node-1:30080 = pod-1-1:8081 masqueraded
    """)
    rig.add(node_port(ports=[tcp]))
    rig.expect("""
        client -> node-1:30080     = pod-1-1 masqueraded
        client -> udp/node-1:30080 = node-1:30080
    """)
    rig.add(node_port(ports=[udp]))
    rig.expect("""
        client -> node-1:30080     = node-1:30080
        client -> udp/node-1:30080 = pod-1-1:8081 masqueraded
    """)


@kube_proxy("6.2-37", "6.2-24")
def test_a_node_port_changes_its_number(rig):
    rig.given(node_port(), slices("pod-1-1"))
    rig.add(node_port(ports=[port(node=30081)]))
    rig.expect("""
        client -> node-1:30080  = node-1:30080
        client -> node-1:30081  = pod-1-1 masqueraded
    """)
    rig.add(node_port(ports=[port(80, "SCTP", node=30081)]), slices("pod-1-1", ports=[port(8080, "SCTP")]))
    rig.expect("""
        client -> node-1:30081      = node-1:30081
        client -> sctp/node-1:30081 = pod-1-1 masqueraded
    """)


@kube_proxy("6.2-38")
def test_endpoints_on_the_host_network(rig):
    rig.given(node_port(), slices("node-1"))
    rig.expect("client -> node-1:30080 = node-1")
    rig.add(slices("node-2"))
    rig.expect("""
        client  -> node-1:30080 = node-2 masqueraded
        pod-1-3 -> node-1:30080 = node-2 masqueraded
    """)


@kube_proxy("gap 5.6-2")
@both_families
def test_neighbours_do_not_reach_loopback(rig, family):
    """Loopback node ports need route_localnet, and with it the kernel alone would let packets for 127.0.0.1 in from
    anywhere. Frames with it as their target are sent from a neighbour; what is bound there must not hear of them.
    """
    rig.given(
        node_port(ports=[port(80, protocol, name=protocol.lower(), node=30080) for protocol in ("TCP", "UDP")]),
        slices("pod-1-1", ports=[port(8080, protocol, name=protocol.lower()) for protocol in ("TCP", "UDP")]),
    )
    assert rig.throw("client", ADDRESSES["node-1"][family], 8080, count=5) == {"node-1": 5}
    for number in (8080, 30080):
        assert rig.throw("client", ADDRESSES["localhost"][family], number, count=5) == {}


@kube_proxy("gap 5.6-2", "6.2-34")
@only_iptables
def test_answers_still_come_back_to_loopback(rig):
    """The caller on the node is served at 127.0.0.1, also a held connection after the rules were written again."""
    rig.given(node_port(), slices("pod-2-1"))
    (call,) = rig.call("localhost", "localhost", 30080)
    assert call.outcome == "pod-2-1"
    rig.add(slices("pod-2-1", "pod-1-1"))
    assert rig.board.echo(call, b"still there", within_s=ANSWER_WITHIN_S) == len(b"still there")
