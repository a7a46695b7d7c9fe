"""Each backend between two nodes, with packets, in IPv4, in IPv6 and in both; and from one backend to the next.

Their kernels are programmed from leases, as the agent does it.
"""

import subprocess
import sys
from dataclasses import replace

import pytest
from agent_pair import needs_wireguard
from deadline import PATIENCE_S
from node_pair import CONVERGE, POD, V4, V6, Pair

from netagent.backends.choice import parse_backend
from netagent.backends.host_gw import HostGw
from netagent.backends.vxlan import Vxlan


@pytest.fixture
def pair(tmp_path):
    made = Pair(tmp_path)
    try:
        made.up()
        yield made
    finally:
        made.down()


def both(backend):
    return {1: backend, 2: backend}


def fits(pair, families, mtu):
    """The largest packet a pod may send arrives whole, in each family."""
    for family in families:
        header = 28 if family is V4 else 48
        pair.ping(family, mtu - header)


FAMILIES = [[V4], [V6], [V4, V6]]


@pytest.mark.flannel("44")
@pytest.mark.parametrize(("families", "mtu"), list(zip(FAMILIES, [1450, 1430, 1430], strict=True)), ids=str)
def test_vxlan_carries_each_family_and_the_largest_packet_it_promises(pair, families, mtu):
    assert pair.run(both(Vxlan()), families) == mtu
    fits(pair, families, mtu)


@pytest.mark.parametrize("families", FAMILIES, ids=str)
def test_host_gw_carries_each_family_at_the_full_size_of_the_link(pair, families):
    assert pair.run(both(HostGw()), families) == 1500
    fits(pair, families, 1500)


def carried(pair, device):
    return int(pair.shows(f"ip -s -o link show {device}").split("RX:")[1].split("\\")[1].split()[1])


@pytest.mark.flannel("43")
def test_a_peer_moves_between_its_own_link_and_the_overlay_and_leaves_one_route(pair):
    direct = both(Vxlan(direct_routing=True))
    for connected in (True, False, True):
        pair.run(direct, [V4, V6], connected=connected)
        for family in (V4, V6):
            before = carried(pair, "flannel.1" if family is V4 else "flannel-v6.1")
            pair.ping(family)
            routes = pair.shows(f"ip -{family.value} route show proto 78").splitlines()
            assert len(routes) == 1
            assert ("dev eth0" in routes[0]) is connected
            assert (carried(pair, "flannel.1" if family is V4 else "flannel-v6.1") == before) is connected
        fdb = pair.shows("bridge fdb show dev flannel.1") + pair.shows("ip neigh show dev flannel.1")
        assert (not fdb.strip()) is connected


@pytest.mark.flannel("22", "23")
@needs_wireguard
@pytest.mark.parametrize("families", FAMILIES, ids=str)
def test_wireguard_carries_each_family(pair, families, monkeypatch):
    backends = {number: pair.wireguard(number, monkeypatch) for number in (1, 2)}
    assert pair.run(backends, families) == 1420
    fits(pair, families, 1420)


@needs_wireguard
@pytest.mark.parametrize("mode", ["auto", "ipv4", "ipv6"])
def test_one_wireguard_device_carries_both_families_over_one_with_a_preshared_key(pair, mode, monkeypatch):
    psk = subprocess.run(["wg", "genpsk"], check=True, capture_output=True, text=True).stdout.strip()
    backends = {
        number: pair.wireguard(number, monkeypatch, Mode=mode, PSK=psk, PersistentKeepaliveInterval=25)
        for number in (1, 2)
    }
    pair.run(backends, [V4, V6])
    fits(pair, [V4, V6], 1420)
    assert pair.shows("ip -o link show type tun").count("\n") == 1
    assert ("[2001:db8::2]" in pair.shows("wg show flannel-wg endpoints")) is (mode == "ipv6")
    assert psk in pair.shows("wg show flannel-wg preshared-keys")


@needs_wireguard
def test_what_wireguard_lost_or_was_told_by_others_is_put_right(pair, monkeypatch):
    backends = {number: pair.wireguard(number, monkeypatch) for number in (1, 2)}
    for command in (
        f"wg set flannel-wg peer {backends[2].public_key} remove",
        f"wg set flannel-wg peer {backends[2].public_key} allowed-ips 10.5.9.0/24",
        "wg set flannel-wg listen-port 4444",
        "ip link set flannel-wg mtu 1300",
        "ip link set flannel-wg down",
        "ip link del flannel-wg",
    ):
        pair.run(backends, [V4])
        pair.shows(command)
        pair.run(backends, [V4])
        pair.ping(V4)


WATCH = CONVERGE.replace("assert", "print('converged', flush=True); input()\n    assert").replace(
    "sys.stdin.read()", "input()"
)


@needs_wireguard
def test_a_peer_that_proves_its_key_from_another_address_has_not_drifted(pair, monkeypatch):
    backends = {number: pair.wireguard(number, monkeypatch) for number in (1, 2)}
    pair.run(backends, [V4])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with pair.hosts[1].popen([sys.executable, "-c", WATCH], **pipes) as agent:
        agent.stdin.write(pair.desired(1, backends, [V4]) + "\n")
        agent.stdin.flush()
        assert agent.stdout.readline() == "converged\n"
        pair.shows("ip addr add 192.0.2.22/24 dev eth0", 2)
        pair.shows("ip route replace 192.0.2.0/24 dev eth0 src 192.0.2.22", 2)
        pair.shows("wg set flannel-wg listen-port 4444", 2)
        pair.shows(f"ping -c1 -W30 -I {POD[V4].format(2)} {POD[V4].format(1)}", 2)
        assert "192.0.2.2:51820" not in pair.shows("wg show flannel-wg endpoints")
        _, complaint = agent.communicate("go on\n", timeout=PATIENCE_S)
        assert agent.returncode == 0, complaint


def leftovers(pair, number):
    """Our traces on a node, by what made them."""
    return pair.devices(number), sorted(set(pair.routes(number)))


@pytest.mark.flannel("B4")
@needs_wireguard
def test_going_from_one_backend_to_the_next_leaves_nothing_of_the_one_before(pair, monkeypatch):
    wireguard = {number: pair.wireguard(number, monkeypatch) for number in (1, 2)}
    vxlan = ({"flannel.1", "flannel-v6.1"}, ["flannel-v6.1", "flannel.1"])
    steps = [
        (both(Vxlan()), vxlan),
        (both(HostGw()), (set(), ["eth0"])),
        (wireguard, ({"flannel-wg", "flannel-wg-v6"}, ["flannel-wg", "flannel-wg-v6"])),
        (both(Vxlan()), vxlan),
        (both(Vxlan(port=4789, mtu=1400)), vxlan),
    ]
    for backends, expected in steps:
        pair.run(backends, [V4, V6])
        for number in (1, 2):
            assert leftovers(pair, number) == expected
        for family in (V4, V6):
            pair.ping(family)
    pair.run(both(replace(Vxlan(), vni=7)), [V4])
    assert leftovers(pair, 1) == ({"flannel.7"}, ["flannel.7"])
    pair.run(both(parse_backend("alloc", {})), [V4])
    assert leftovers(pair, 1) == (set(), [])


@pytest.mark.flannel("40", "B4")
def test_flannelds_leftovers_of_any_backend_are_cleaned_up_or_taken_over(pair):
    pair.shows("ip link add flannel.9 type vxlan id 9 dev eth0 dstport 8472")
    pair.shows("ip link set flannel.9 up")
    pair.shows("ip route add 10.5.2.0/24 via 192.0.2.2 dev eth0")
    pair.shows("ip route add 10.99.0.0/16 via 192.0.2.2 dev eth0")
    pair.run(both(HostGw()), [V4])
    assert "flannel.9" not in pair.shows("ip link show")
    assert pair.shows("ip route show 10.5.2.0/24").strip() == "10.5.2.0/24 via 192.0.2.2 dev eth0 proto 78"
    assert pair.shows("ip route show 10.99.0.0/16")


@pytest.mark.flannel("19", "22")
def test_ipip_carries_ipv4(pair):
    made = subprocess.run(
        ["ip", "-n", pair.hosts[1].namespace, "link", "add", "probe", "type", "ipip", "local", "192.0.2.1"],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("needs the kernel module ipip")
    pair.shows("ip link del probe")
    assert pair.run(both(parse_backend("ipip", {})), [V4]) == 1480
    fits(pair, [V4], 1480)
