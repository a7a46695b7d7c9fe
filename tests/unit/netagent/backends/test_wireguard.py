"""WireGuard and IPIP as values: options, leases, objects, and what `wg` prints and reads."""

import shutil
import stat
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from controlloop.errors import OperatorError, Skipped
from controlloop.family import Family
from netagent.backends.backend import Node
from netagent.backends.choice import parse_backend
from netagent.backends.ipip import Ipip
from netagent.backends.wg_key import with_key
from netagent.backends.wg_text import NO_PRESHARED_KEY, parse_dump, render_peers
from netagent.backends.wireguard import Mode, Wireguard
from netagent.desired import grounds, lease_attrs, own_state, peer_state, pod_mtu
from netagent.overlay import Overlay
from netagent.state import Underlay, WireguardPeer
from subnet_alloc.codec import parse_lease, render_attrs
from subnet_alloc.model import Lease
from subnet_alloc.registry import Listing, Record
from subnet_alloc.snapshot import LeaseSnapshot

V4, V6 = Family.V4, Family.V6
OURS = "a" * 42 + "A="
THEIRS = "b" * 42 + "Y="
PSK = "c" * 42 + "c="

UNDERLAY = {
    V4: Underlay("eth0", 1500, ip_address("192.0.2.1"), frozenset({ip_network("192.0.2.0/24")})),
    V6: Underlay("eth0", 1500, ip_address("2001:db8::1")),
}
NETWORKS = {V4: ip_network("10.5.0.0/16"), V6: ip_network("fc00:5::/48")}
SUBNETS = {V4: ip_network("10.5.1.0/24"), V6: ip_network("fc00:5:0:1::/64")}


def node(backend, families=(V4, V6)):
    underlay = {family: UNDERLAY[family] for family in families}
    return Node("node-a", backend, underlay, {family: each.address for family, each in underlay.items()}, NETWORKS)


def own_lease(here):
    return Lease({family: SUBNETS[family] for family in here.underlay}, lease_attrs(here))


def lines(state):
    return [f"{key} {value}" for key, value in state.items()]


def peer(here, *, ip="192.0.2.2", ip6="2001:db8::2", key=THEIRS, port=51820, port6=51821):
    value = (
        f'{{"PublicIP":"{ip}","PublicIPv6":"{ip6}","BackendType":"wireguard",'
        f'"BackendData":{{"PublicKey":"{key}","Port":{port}}},"BackendV6Data":{{"PublicKey":"{key}","Port":{port6}}}}}'
    )
    return peer_state(
        "peer", parse_lease("10.5.2.0-24&fc00:5:0:2::-64", value.encode()), here, grounds(here, own_lease(here))
    )


WG = Wireguard(public_key=OURS, key_file="/run/flannel/wgkey")


def test_a_lease_says_key_and_port_as_flanneld_writes_them():
    assert render_attrs(lease_attrs(node(WG))) == (
        b'{"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1","BackendType":"wireguard",'
        b'"BackendData":{"PublicKey":"%b","Port":51820},"BackendV6Data":{"PublicKey":"%b","Port":51821}}'
        % (OURS.encode(), OURS.encode())
    )


def test_each_family_has_a_device_an_identity_an_address_and_the_route_to_the_network():
    here = node(WG)
    assert lines(own_state(here, own_lease(here))) == [
        "link flannel-wg mtu 1420 up alias nodenet wireguard",
        f"wireguard dev flannel-wg public-key {OURS} listen-port 51820",
        "address 10.5.1.0/32 dev flannel-wg",
        "route 10.5.0.0/16 dev flannel-wg proto 78",
        "link flannel-wg-v6 mtu 1420 up alias nodenet wireguard",
        f"wireguard dev flannel-wg-v6 public-key {OURS} listen-port 51821",
        "address fc00:5:0:1::/128 dev flannel-wg-v6",
        "route fc00:5::/48 dev flannel-wg-v6 proto 78 metric 1024",
    ]
    assert lines(peer(here)) == [
        f"wireguard peer {THEIRS} dev flannel-wg endpoint 192.0.2.2:51820 allowed-ips 10.5.2.0/24",
        f"wireguard peer {THEIRS} dev flannel-wg-v6 endpoint [2001:db8::2]:51821 allowed-ips fc00:5:0:2::/64",
        f"wireguard subnet 10.5.2.0/24 dev flannel-wg peer {THEIRS}",
        f"wireguard subnet fc00:5:0:2::/64 dev flannel-wg-v6 peer {THEIRS}",
    ]


TUNNELS = [
    (Mode.IPV4, {}, "192.0.2.2:51820"),
    (Mode.IPV6, {"port6": 51820}, "[2001:db8::2]:51820"),
    (Mode.AUTO, {}, "192.0.2.2:51820"),
    (Mode.AUTO, {"ip": "8.8.8.8", "ip6": "2600::1"}, "8.8.8.8:51820"),
    (Mode.AUTO, {"ip6": "2600::1", "port6": 51820}, "[2600::1]:51820"),
]


@pytest.mark.parametrize(("mode", "lease", "endpoint"), TUNNELS, ids=str)
def test_one_device_carries_both_families_over_the_one_that_the_mode_says(mode, lease, endpoint):
    here = node(replace(WG, mode=mode))
    assert here.backend.devices(here.underlay) == ("flannel-wg",)
    assert len(own_state(here, own_lease(here))) == 6
    assert lines(peer(here, **lease))[0] == (
        f"wireguard peer {THEIRS} dev flannel-wg endpoint {endpoint} allowed-ips 10.5.2.0/24,fc00:5:0:2::/64"
    )


def test_a_subnet_that_two_leases_claim_belongs_to_the_one_written_last():
    here = node(WG, [V4])
    overlay, snapshot = Overlay(here), LeaseSnapshot()
    value = '{"PublicIP":"192.0.2.%d","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"%s"}}'
    old = Record("10.5.2.0-24", (value % (2, THEIRS)).encode(), 2)
    new = Record("10.5.2.0-24&fc00:5:0:2::-64", (value % (3, PSK)).encode(), 3)
    overlay.follow("10.5.1.0-24", own_lease(here), snapshot, snapshot.replace(Listing(3, (old, new))))
    assert set(overlay.skipped) == {old.key}
    assert [each.public_key for each in overlay.objects.values() if isinstance(each, WireguardPeer)] == [PSK]


REFUSED = {
    f"PublicKey {OURS} is ours": {"key": OURS},
    "PublicKey 'short': not 32 bytes": {"key": "short"},
    "Port 70000: not a port": {"port": 70000},
    "Port '7': not a port": {"port": '"7"'},
    "public IP 224.0.0.1": {"ip": "224.0.0.1"},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_peer_without_a_usable_key_or_port_is_skipped_and_named(reason):
    skipped = peer(node(WG), **REFUSED[reason])
    assert isinstance(skipped, Skipped)
    assert reason in skipped.reason


def test_options_have_flannels_names_in_any_case_and_its_defaults():
    assert parse_backend("wireguard", {}) == Wireguard()
    given = {
        "listenport": 1,
        "ListenPortV6": 2,
        "MTU": 1400,
        "PSK": PSK,
        "PersistentKeepaliveInterval": 25,
        "Mode": "auto",
    }
    assert parse_backend("WireGuard", given) == Wireguard(1, 2, 1400, PSK, 25, Mode.AUTO)


BAD_OPTIONS = {
    "Backend.Mode 'both': use one of separate, auto, ipv4, ipv6": {"Mode": "both"},
    "Backend.ListenPort -1": {"ListenPort": -1},
    "Backend.PersistentKeepaliveInterval '25'": {"PersistentKeepaliveInterval": "25"},
    "Backend.PSK: not 32 bytes in base64": {"PSK": "hunter2"},
    "Backend.PSK: not a text": {"PSK": 7},
}


@pytest.mark.parametrize("words", BAD_OPTIONS)
def test_a_bad_option_is_refused_by_name_and_no_secret_is_told(words):
    with pytest.raises(OperatorError) as refused:
        parse_backend("wireguard", BAD_OPTIONS[words])
    assert str(refused.value).startswith(words)
    assert "hunter2" not in str(refused.value)


def test_a_mode_asks_for_its_family_and_an_mtu_leaves_room_for_a_link():
    with pytest.raises(OperatorError, match=r"Backend\.Mode ipv6: the network has no IPv6"):
        replace(WG, mode=Mode.IPV6).check(node(WG, [V4]))
    with pytest.raises(OperatorError, match=r"Backend\.MTU 1300: leaves 1220 bytes, and a link needs 1280"):
        replace(WG, mtu=1300).check(node(WG))
    assert pod_mtu(node(replace(WG, mtu=9000))) == 1420


A_PEER = WireguardPeer(
    THEIRS, (ip_address("2001:db8::2"), 51821), frozenset(NETWORKS.values()), "flannel-wg", 25, preshared_key=PSK
)
NOBODY = WireguardPeer(OURS, None, frozenset(), "flannel-wg")
DUMP = (
    f"private\t{OURS}\t51820\toff\n"
    f"{THEIRS}\t{PSK}\t[2001:db8::2]:51821\tfc00:5::/48,10.5.0.0/16\t1700000000\t1\t2\t25\n"
    f"{OURS}\t{NO_PRESHARED_KEY}\t(none)\t(none)\t0\t0\t0\toff\n"
)


def test_what_wg_shows_is_read_and_keeps_the_private_key_out():
    shown = parse_dump("flannel-wg", DUMP)
    assert str(shown.identity) == f"dev flannel-wg public-key {OURS} listen-port 51820"
    assert shown.peers == (A_PEER, NOBODY)
    assert shown.proven == {A_PEER.key}
    assert "private" not in repr(shown)


def test_a_device_without_a_key_is_read_as_such():
    assert parse_dump("flannel-wg", "(none)\t(none)\t0\toff\n").identity.public_key == ""


def test_what_wg_reads_says_every_value_so_that_nothing_old_stays():
    assert render_peers([A_PEER, NOBODY]).splitlines() == [
        "[Peer]",
        f"PublicKey = {THEIRS}",
        f"PresharedKey = {PSK}",
        "AllowedIPs = 10.5.0.0/16, fc00:5::/48",
        "Endpoint = [2001:db8::2]:51821",
        "PersistentKeepalive = 25",
        "[Peer]",
        f"PublicKey = {OURS}",
        f"PresharedKey = {NO_PRESHARED_KEY}",
        "AllowedIPs = ",
        "PersistentKeepalive = off",
    ]


def test_no_secret_is_ever_printed():
    backend = replace(WG, psk=PSK)
    for thing in (A_PEER, backend):
        assert PSK not in repr(thing)
        assert PSK not in str(thing)


needs_wg = pytest.mark.skipif(shutil.which("wg") is None, reason="needs wg from wireguard-tools")


@needs_wg
async def test_the_key_is_made_once_and_read_by_its_owner_alone(tmp_path, monkeypatch):
    file = tmp_path / "flannel" / "wgkey"
    monkeypatch.setenv("WIREGUARD_KEY_FILE", str(file))
    first = await with_key(Wireguard())
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    assert len(first.public_key) == 44
    assert await with_key(Wireguard()) == first
    assert first.key_file == str(file)


@needs_wg
async def test_a_file_that_holds_no_key_is_the_operators_move(tmp_path, monkeypatch):
    file = tmp_path / "wgkey"
    file.write_text("no key")
    monkeypatch.setenv("WIREGUARD_KEY_FILE", str(file))
    with pytest.raises(OperatorError, match=f"WIREGUARD_KEY_FILE {file}: "):
        await with_key(Wireguard())


def ipip_lines(ip="192.0.2.2", backend=Ipip()):  # noqa: B008 - frozen
    here = node(backend, [V4])
    lease = parse_lease("10.5.2.0-24", f'{{"PublicIP":"{ip}","PublicIPv6":null,"BackendType":"ipip"}}'.encode())
    own = own_lease(here)
    return lines(own_state(here, own)), lines(peer_state("peer", lease, here, grounds(here, own)))


def test_ipip_is_one_device_and_a_route_for_each_peer():
    own, peers = ipip_lines()
    assert own == [
        "link flannel.ipip mtu 1480 up alias nodenet ipip local 192.0.2.1",
        "address 10.5.1.0/32 dev flannel.ipip",
    ]
    assert peers == ["route 10.5.2.0/24 via 192.0.2.2 dev flannel.ipip onlink proto 78"]


@pytest.mark.parametrize(("ip", "way"), [("192.0.2.2", "dev eth0"), ("198.51.100.2", "dev flannel.ipip onlink")])
def test_ipip_goes_direct_on_the_own_link_where_that_is_asked_for(ip, way):
    assert ipip_lines(ip, parse_backend("ipip", {"directrouting": True}))[1] == [
        f"route 10.5.2.0/24 via {ip} {way} proto 78"
    ]


def test_ipip_carries_no_ipv6():
    with pytest.raises(OperatorError, match="carries IPv4 only"):
        Ipip().check(node(Ipip()))
