from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from controlloop.delta import Delta, diff
from controlloop.errors import OperatorError, Skipped
from controlloop.family import Family
from netagent.backends.backend import Node
from netagent.backends.vxlan import Vxlan, vtep_mac
from netagent.desired import grounds, lease_attrs, own_state, peer_state, pod_mtu
from netagent.overlay import Overlay
from netagent.state import Underlay
from subnet_alloc.codec import parse_lease, render_attrs, render_key
from subnet_alloc.model import Lease, LeaseAttrs
from subnet_alloc.registry import Batch, Listing, Record
from subnet_alloc.snapshot import LeaseSnapshot

UNDERLAY = {
    Family.V4: Underlay("eth0", 1500, ip_address("192.0.2.1")),
    Family.V6: Underlay("eth0", 1500, ip_address("2001:db8::1")),
}


def node(*families, backend=Vxlan(), public_ip=None):  # noqa: B008 - frozen
    underlay = {family: UNDERLAY[family] for family in families or [Family.V4]}
    public = {family: public_ip or each.address for family, each in underlay.items()}
    return Node("node-a", backend, underlay, public)


NODE = node()
OWN = Lease({Family.V4: ip_network("10.5.1.0/24")}, lease_attrs(NODE))
MY_MAC = vtep_mac("node-a", "flannel.1")
MAC = "82:4b:b6:2f:54:4e"


def peer(subnet="10.5.2.0/24", public_ip="192.0.2.2", mac=MAC, backend_type="vxlan"):
    attrs = LeaseAttrs(
        {Family.V4: ip_address(public_ip)} if public_ip else {},
        backend_type,
        {Family.V4: {"VNI": 1, "VtepMAC": mac}},
    )
    return Lease({Family.V4: ip_network(subnet)}, attrs)


def lines(state):
    return [f"{key} {value}" for key, value in state.items()]


def test_the_own_lease_becomes_a_device_and_its_address():
    link, address = lines(own_state(NODE, OWN))
    assert link.startswith(f"link flannel.1 mtu 1450 up alias nodenet address {MY_MAC} vxlan id 1 ")
    assert link.endswith(" local 192.0.2.1 dev eth0 dstport 8472 nolearning")
    assert address == "address 10.5.1.0/32 dev flannel.1"


def test_a_peer_becomes_an_fdb_entry_a_neighbor_and_a_route():
    assert lines(peer_state("10.5.2.0-24", peer(), NODE, grounds(NODE, OWN))) == [
        f"fdb {MAC} dev flannel.1 dst 192.0.2.2 self permanent",
        f"neighbor 10.5.2.0 dev flannel.1 lladdr {MAC} PERMANENT",
        "route 10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink proto 78",
    ]


def test_ipv6_takes_the_same_path_with_its_own_device():
    both = node(Family.V4, Family.V6)
    own = Lease({**OWN.subnets, Family.V6: ip_network("fc00:5:1::/64")}, lease_attrs(both))
    value = (
        b'{"PublicIP":"192.0.2.2","PublicIPv6":"2001:db8::2","BackendType":"vxlan",'
        b'"BackendData":{"VNI":1,"VtepMAC":"82:4b:b6:2f:54:4e"},"BackendV6Data":{"VNI":1,"VtepMAC":"82:4b:b6:2f:54:66"}}'
    )
    state = peer_state("", parse_lease("10.5.2.0-24&fc00:5:2::-64", value), both, grounds(both, own))
    assert "route fc00:5:2::/64 via fc00:5:2:: dev flannel-v6.1 onlink proto 78 metric 1024" in lines(state)
    assert len(state) == 6
    assert pod_mtu(both) == 1430


REASONS = {
    'BackendType "host-gw"': peer(backend_type="host-gw"),
    "VtepMAC None": peer(mac=None),
    "VtepMAC 'x'": peer(mac="x"),
    "VtepMAC 7": peer(mac=7),
    "VtepMAC '01:00:5e:00:00:01': a multicast address": peer(mac="01:00:5e:00:00:01"),
    "VtepMAC '00:00:00:00:00:00': all zero": peer(mac="00:00:00:00:00:00"),
    "is ours: do two nodes have the name node-a": peer(mac=MY_MAC),
    "no VtepMAC": Lease(peer().subnets, replace(peer().attrs, backend_data={})),
    "overlaps ours": peer(subnet="10.5.1.0/25"),
    "subnet 10.5.1.0/24 overlaps ours": peer(subnet="10.5.1.0/24"),
    "covers our address 192.0.2.1": peer(subnet="192.0.2.0/24", public_ip="198.51.100.1"),
    "public IP 192.0.2.1 is ours": peer(public_ip="192.0.2.1"),
    "lies inside its own subnet": peer(public_ip="10.5.2.9"),
    "public IP None": peer(public_ip=None),
    "public IP 224.0.0.1": peer(public_ip="224.0.0.1"),
}


@pytest.mark.parametrize("reason", REASONS)
def test_a_peer_that_cannot_or_must_not_be_followed_is_skipped_and_named(reason):
    skipped = peer_state("10.5.2.0-24", REASONS[reason], NODE, grounds(NODE, OWN))
    assert isinstance(skipped, Skipped)
    assert skipped.name == "10.5.2.0-24"
    assert reason in skipped.reason


def test_what_we_tell_peers_is_what_flanneld_would_write():
    told = render_attrs(lease_attrs(NODE))
    assert told == (
        b'{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan",'
        b'"BackendData":{"VNI":1,"VtepMAC":"' + MY_MAC.encode() + b'"}}'
    )


def test_behind_nat_the_device_keeps_the_address_that_this_host_has():
    outside = node(public_ip=ip_address("203.0.113.7"))
    assert lease_attrs(outside).public_ip == {Family.V4: ip_address("203.0.113.7")}
    assert "local 192.0.2.1 " in lines(own_state(outside, OWN))[0]


def test_an_mtu_larger_than_the_interface_has_is_not_promised_to_pods():
    assert pod_mtu(node(backend=Vxlan(mtu=9000))) == 1450
    assert pod_mtu(node(backend=Vxlan(mtu=1400))) == 1350
    with pytest.raises(OperatorError, match=r"Backend\.MTU 60"):
        pod_mtu(node(backend=Vxlan(mtu=60)))


@pytest.mark.flannel("18")
def test_a_node_keeps_its_mac_and_no_two_devices_share_one():
    assert vtep_mac("node-a", "flannel.1") == vtep_mac("node-a", "flannel.1")
    macs = {vtep_mac(name, device) for name in ("a", "b") for device in ("flannel.1", "flannel.2", "flannel-v6.1")}
    assert len(macs) == 6
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs), "locally administered, unicast"


# The overlay as it moves


def record(lease, revision):
    return Record(render_key(lease.subnets), render_attrs(lease.attrs), revision)


class Moving:
    """An overlay, its leases, and a kernel that takes each delta as it comes."""

    def __init__(self, here=NODE):
        self.snapshot = LeaseSnapshot()
        self.overlay = Overlay(here)
        self.kernel = {}
        self.follow(self.snapshot.replace(Listing(1, (record(OWN, 1),))))

    def follow(self, changed, own=OWN):
        delta = self.overlay.follow(render_key(own.subnets), own, self.snapshot, changed)
        delta.apply_to(self.kernel)
        assert self.kernel == dict(self.overlay.objects)
        return delta

    def put(self, *leases):
        revision = self.snapshot.revision + 1
        records = tuple(record(lease, revision + place) for place, lease in enumerate(leases))
        return self.follow(self.snapshot.apply(Batch(revision + len(leases), records)))

    def remove(self, lease):
        key = render_key(lease.subnets)
        return self.follow(self.snapshot.apply(Batch(self.snapshot.revision + 1, (), (key,))))


def test_one_changed_peer_costs_what_it_has():
    moving = Moving()
    moving.put(*(peer(f"10.5.{n}.0/24", f"192.0.2.{n}", f"82:00:00:00:00:{n:02x}") for n in range(2, 100)))
    assert len(moving.put(peer("10.5.7.0/24", "192.0.2.200", "82:00:00:00:00:07"))) == 1
    assert len(moving.remove(peer("10.5.7.0/24"))) == 3
    assert moving.overlay.peers == 97


@pytest.mark.flannel("6", "A5")
def test_the_own_lease_is_no_peer_and_not_skipped():
    moving = Moving()
    assert moving.overlay.peers == 0
    assert not moving.overlay.skipped


def test_a_mac_in_two_leases_belongs_to_the_one_written_last_and_falls_back():
    moving = Moving()
    old, new = peer(), peer("10.5.3.0/24", "192.0.2.3")
    moving.put(old)
    moving.put(new)
    assert set(moving.overlay.skipped) == {"10.5.2.0-24"}
    assert "192.0.2.3" in " ".join(lines(moving.kernel))
    moving.remove(new)
    assert not moving.overlay.skipped
    assert "192.0.2.2" in " ".join(lines(moving.kernel))


@pytest.mark.parametrize("claimed", ["10.5.2.0/25", "10.5.2.128/25", "10.5.2.6/31", "10.5.2.0/23", "10.5.128.0/17"])
@pytest.mark.parametrize("honest_first", [True, False])
def test_a_claim_to_a_part_of_a_peers_subnet_or_to_more_than_that_gets_nothing(claimed, honest_first):
    moving = Moving()
    honest = [peer(), peer("10.5.200.0/24", "192.0.2.20", "82:00:00:00:00:20")]
    claim = peer(claimed, "192.0.2.66", "82:00:00:00:00:66")
    for leases in (honest, [claim]) if honest_first else ([claim], honest):
        moving.put(*leases)
    assert set(moving.overlay.skipped) == {render_key(claim.subnets)}
    assert "192.0.2.66" not in " ".join(lines(moving.kernel))
    for lease in honest:
        moving.remove(lease)
    assert not moving.overlay.skipped
    assert "192.0.2.66" in " ".join(lines(moving.kernel))


def test_a_subnet_of_another_length_that_is_nobody_elses_is_followed():
    moving = Moving()
    moving.put(peer(), peer("10.5.4.0/25", "192.0.2.4", "82:00:00:00:00:04"))
    assert not moving.overlay.skipped
    assert moving.overlay.peers == 2


def test_two_leases_of_one_node_share_its_fdb_entry():
    moving = Moving()
    moving.put(peer(), peer("10.5.3.0/24"))
    assert len(moving.kernel) == 2 + 5
    moving.remove(peer())
    assert len(moving.kernel) == 2 + 3


def test_a_new_own_subnet_judges_all_peers_anew():
    moving = Moving()
    moving.put(peer(), peer("10.5.9.0/24", "192.0.2.9", "82:00:00:00:00:09"))
    own = Lease({Family.V4: ip_network("10.5.9.0/24")}, OWN.attrs)
    moving.follow(frozenset(), own)
    assert "address 10.5.9.0/32 dev flannel.1" in lines(moving.kernel)
    assert moving.overlay.peers == 1


def test_a_link_that_now_reaches_a_peer_makes_it_direct_and_back():
    backend = Vxlan(direct_routing=True)
    moving = Moving(node(backend=backend))
    moving.put(peer())
    assert len(moving.kernel) == 2 + 3
    connected = replace(UNDERLAY[Family.V4], connected=frozenset({ip_network("192.0.2.0/24")}))
    moving.overlay.stand_on(replace(node(backend=backend), underlay={Family.V4: connected}))
    assert len(moving.follow(frozenset())) == 3
    assert "route 10.5.2.0/24 via 192.0.2.2 dev eth0 proto 78" in lines(moving.kernel)
    moving.overlay.stand_on(node(backend=backend))
    moving.follow(frozenset())
    assert len(moving.kernel) == 2 + 3


def test_a_step_without_change_has_an_empty_delta():
    moving = Moving()
    moving.put(peer())
    assert moving.follow(frozenset(moving.snapshot.leases)) == Delta()
    assert not diff(moving.overlay.objects, moving.kernel)
