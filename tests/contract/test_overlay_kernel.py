"""One contract for every overlay kernel: what is applied is what is dumped, and nothing foreign is touched.

The real kernel stands under it in a network namespace made for this module; the test's thread moves there.
"""

import ctypes
import os
import pickle
import shutil
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from namespace import fresh_namespace

from controlloop.delta import Delta, diff
from controlloop.family import Family
from controlloop.reconcile import reconcile
from lab.enter import opened_up
from netagent.backends.backend import Node
from netagent.backends.vxlan import Vxlan, backend_data
from netagent.desired import grounds, own_state, peer_state
from netagent.instance import Instance
from netagent.state import METRIC, Route, Underlay
from subnet_alloc.model import Lease, LeaseAttrs

NAMESPACE = f"nodenet-overlay-{os.getpid()}"
CLONE_NEWNET = 0x40000000
ROOT = Path(__file__).parents[2]

if os.geteuid() != 0 or shutil.which("bridge") is None:
    pytest.skip("needs root for network namespaces, and iproute2 with bridge", allow_module_level=True)

UNDERLAY = {
    Family.V4: Underlay("under0", 1500, ip_address("192.0.2.1"), frozenset({ip_network("192.0.2.0/24")})),
    Family.V6: Underlay("under0", 1500, ip_address("2001:db8::1"), frozenset({ip_network("2001:db8::/64")})),
}


def sh(*commands):
    for command in commands:
        subprocess.run(command.split(), check=True, capture_output=True, text=True)


def output(command):
    return subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout


def enter(path):
    with Path(path).open() as namespace:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.setns(namespace.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


@pytest.fixture(scope="module", autouse=True)
def namespace():
    own = f"/proc/{os.getpid()}/task/{os.getpid()}/ns/net"
    with Path(own).open() as home:
        sh(f"ip netns add {NAMESPACE}")
        try:
            enter(f"/run/netns/{NAMESPACE}")
            yield
        finally:
            enter(f"/proc/self/fd/{home.fileno()}")
            sh(f"ip netns del {NAMESPACE}")


@pytest.fixture(autouse=True)
def underlay(namespace):
    sh(
        "ip link add under0 type veth peer name under1",
        "ip address add 192.0.2.1/24 dev under0",
        "ip address add 2001:db8::1/64 dev under0 nodad",
        "ip link set under0 up",
        "ip link set under1 up",
    )
    yield
    for link in output("ip -o link show type vxlan").splitlines():
        sh(f"ip link del {link.split()[1].rstrip(':')}")
    sh("ip link del under0")


class MemoryKernel:
    """The contract without a kernel."""

    def __init__(self):
        self.objects = {}

    async def dump(self):
        return dict(self.objects)

    async def apply(self, delta):
        delta.apply_to(self.objects)

    def close(self):
        pass


def overlay_kernel():
    # pyroute2 loads slowly, and not at all where the module is skipped.
    from netagent.kernel import OverlayKernel  # noqa: PLC0415

    return OverlayKernel()


@pytest.fixture
def real():
    kernel = overlay_kernel()
    yield kernel
    kernel.close()


@pytest.fixture(params=["memory", "linux"])
def kernel(request):
    return MemoryKernel() if request.param == "memory" else request.getfixturevalue("real")


def node(*families, backend=Vxlan(), **more):  # noqa: B008 - frozen
    underlay = {family: UNDERLAY[family] for family in families or [Family.V4]}
    return Node("node-a", backend, underlay, {family: each.address for family, each in underlay.items()}, **more)


SUBNET = {Family.V4: "10.5.{}.0/24", Family.V6: "fd00:5:{}::/64"}
PUBLIC_IP = {Family.V4: "192.0.2.{}", Family.V6: "2001:db8::{}"}


def lease(number, families, mac=None):
    families = families or [Family.V4]
    attrs = LeaseAttrs(
        {family: ip_address(PUBLIC_IP[family].format(number)) for family in families},
        "vxlan",
        {family: backend_data(1, mac or f"02:00:00:00:00:{number:02x}") for family in families},
    )
    return Lease({family: ip_network(SUBNET[family].format(number)) for family in families}, attrs)


def overlay(*families, backend=Vxlan(), peers=range(2, 5), **more):  # noqa: B008 - frozen
    """What a node with these peers desires."""
    here, own = node(*families, backend=backend, **more), lease(1, families)
    state = dict(own_state(here, own))
    for number in peers:
        state |= peer_state("peer", lease(number, families), here, grounds(here, own))
    return state


FAMILIES = [[Family.V4], [Family.V6], [Family.V4, Family.V6]]


@pytest.mark.parametrize("families", FAMILIES, ids=str)
async def test_what_is_applied_is_what_is_dumped(kernel, families):
    desired = overlay(*families)
    await kernel.apply(diff(desired, await kernel.dump()))
    assert await kernel.dump() == desired


@pytest.mark.parametrize("families", FAMILIES, ids=str)
async def test_nothing_is_left_when_nothing_is_desired(kernel, families):
    desired = overlay(*families)
    await kernel.apply(diff(desired, {}))
    await kernel.apply(diff({}, desired))
    assert await kernel.dump() == {}


@pytest.mark.flannel("15")
@pytest.mark.parametrize("families", FAMILIES, ids=str)
async def test_direct_routes_take_the_place_of_the_overlays_and_give_it_back(kernel, families):
    """On the way to IPv6 the kernel refuses a gateway that another route of the table leads to elsewhere."""
    direct = overlay(*families, backend=Vxlan(direct_routing=True))
    for desired in (overlay(*families), direct, overlay(*families)):
        await reconcile(lambda desired=desired: desired, kernel)
        assert await kernel.dump() == desired
    assert {value.device for key, value in direct.items() if key.kind == "route"} == {"under0"}
    assert not {key.kind for key in direct} & {"fdb", "neighbor"}


@pytest.mark.parametrize("families", FAMILIES, ids=str)
async def test_a_blackhole_comes_and_goes_like_any_route(kernel, families):
    for desired in (overlay(*families, blackhole=True), overlay(*families)):
        await reconcile(lambda desired=desired: desired, kernel)
        assert await kernel.dump() == desired


async def test_a_converged_kernel_needs_no_change(kernel):
    desired = overlay()
    await reconcile(lambda: desired, kernel)
    assert not (await reconcile(lambda: desired, kernel)).delta


LOOK = """
import asyncio, pickle, sys
from controlloop.reconcile import reconcile
from netagent.kernel import OverlayKernel
desired = pickle.load(sys.stdin.buffer)
report = asyncio.run(reconcile(lambda: desired, OverlayKernel()))
print(len(report.delta), "pyroute2" in sys.modules)
"""


async def test_a_start_over_the_right_devices_does_without_pyroute2(real):
    desired = overlay(Family.V4, Family.V6)
    argv = [sys.executable, "-c", LOOK]
    found = []
    for _ in range(2):
        done = subprocess.run(  # noqa: ASYNC221 - nothing else runs meanwhile
            argv, input=pickle.dumps(desired), cwd=ROOT, capture_output=True, check=True
        )
        found.append(done.stdout.decode().split())
    assert found == [[str(len(desired)), "True"], ["0", "False"]]
    assert await real.dump() == desired


@pytest.mark.flannel("42")
@pytest.mark.parametrize("gone", ["peers", "everything"])
async def test_removing_what_is_already_gone_succeeds(kernel, gone):
    desired = overlay()
    rest = overlay(peers=()) if gone == "peers" else {}
    await kernel.apply(diff(desired, {}))
    await kernel.apply(diff(rest, desired))
    await kernel.apply(diff(rest, desired))
    assert await kernel.dump() == rest


@pytest.mark.flannel("37")
async def test_a_peer_that_changes_mac_and_address_leaves_nothing_behind(kernel):
    before, here, own = overlay(), node(), lease(1, [])
    moved = lease(9, [], mac="02:99:99:99:99:99")
    peer = Lease(lease(2, []).subnets, moved.attrs)
    after = overlay(peers=range(3, 5)) | dict(peer_state("peer", peer, here, grounds(here, own)))
    await kernel.apply(diff(before, {}))
    await kernel.apply(diff(after, before))
    assert await kernel.dump() == after


OPTIONS = [{"vni": 7}, {"port": 4789}, {"mtu": 1400}, {"gbp": True}, {"learning": True}]


@pytest.mark.flannel("41")
@pytest.mark.parametrize("backend", [Vxlan(**each) for each in OPTIONS], ids=map(str, OPTIONS))
async def test_a_changed_option_is_carried_out_with_all_peers_in_place(kernel, backend):
    await reconcile(overlay, kernel)
    await reconcile(lambda: overlay(backend=backend), kernel)
    assert await kernel.dump() == overlay(backend=backend)


DRIFT = [
    "ip route del 10.5.2.0/24",
    "ip route replace 10.5.2.0/24 via 10.5.3.0 dev flannel.1 onlink proto 78",
    "ip route add 10.77.0.0/24 via 10.5.2.0 dev flannel.1 onlink proto 78",
    "ip route add 10.77.0.0/24 via 10.77.0.0 dev flannel.1 onlink",
    "ip route add 10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink proto 78 metric 7",
    "ip route add 10.77.0.0/24 via 192.0.2.9 proto 78",
    "ip neigh del 10.5.2.0 dev flannel.1",
    "ip neigh replace 10.5.2.0 lladdr 02:bb:bb:bb:bb:bb dev flannel.1",
    "ip neigh add 10.77.0.1 lladdr 02:bb:bb:bb:bb:bb dev flannel.1",
    "bridge fdb del 02:00:00:00:00:02 dev flannel.1",
    "bridge fdb replace 02:00:00:00:00:02 dev flannel.1 dst 192.0.2.77",
    "bridge fdb add 02:bb:bb:bb:bb:bb dev flannel.1 dst 192.0.2.77",
    "bridge fdb append 00:00:00:00:00:00 dev flannel.1 dst 192.0.2.77",
    "ip address flush dev flannel.1",
    "ip address add 10.77.0.1/24 dev flannel.1",
    "ip address add 10.5.1.0/24 dev flannel.1",
    "ip -6 address add fd00:77::1/64 dev flannel.1",
    "ip link set flannel.1 mtu 1300",
    "ip link set flannel.1 address 02:bb:bb:bb:bb:bb",
    "ip link set flannel.1 alias other",
    "ip link set flannel.1 down",
    "ip link set flannel.1 type vxlan learning",
    "ip link del flannel.1",
]


@pytest.mark.flannel("12")
@pytest.mark.parametrize("command", DRIFT)
async def test_drift_is_seen_and_repaired(real, command):
    desired = overlay()
    await reconcile(lambda: desired, real)
    sh(command)
    report = await reconcile(lambda: desired, real)
    assert report.delta, "the dump did not show it"
    assert await real.dump() == desired


@pytest.mark.parametrize("drift", ["mtu 1300", "alias other", "type vxlan learning"])
async def test_a_device_that_is_mended_keeps_what_stands_on_it(real, drift):
    """The kernel flushes the neighbors of a device that is given a MAC, also its own."""
    desired = overlay()
    await reconcile(lambda: desired, real)
    sh(f"ip link set flannel.1 {drift}")
    repair = diff(desired, await real.dump())
    assert {key.kind for key in repair.put} == {"link"}
    await real.apply(repair)
    assert await real.dump() == desired


@pytest.mark.parametrize("kind", ["dstport 4789", "dstport 8472 local 192.0.2.7", "dstport 8472 gbp"])
async def test_a_device_of_our_name_made_differently_is_made_again(real, kind):
    desired = overlay()
    await reconcile(lambda: desired, real)
    sh("ip link del flannel.1", f"ip link add flannel.1 up type vxlan id 1 dev under0 {kind}")
    await reconcile(lambda: desired, real)
    assert await real.dump() == desired


@pytest.mark.flannel("40", "B4")
async def test_the_device_of_flanneld_is_taken_over_without_being_made_again(real):
    sh(
        "ip link add flannel.1 type vxlan id 1 dev under0 local 192.0.2.1 dstport 8472 nolearning",
        "ip address add 10.5.1.0/32 dev flannel.1",
        "ip link set flannel.1 up",
        "ip route add 10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink",
        "ip route add 10.5.66.0/24 via 10.5.66.0 dev flannel.1 onlink",
    )
    index = output("ip -o link show flannel.1").split(":")[0]
    await reconcile(overlay, real)
    assert await real.dump() == overlay()
    assert output("ip -o link show flannel.1").split(":")[0] == index
    assert "10.5.66.0" not in output("ip route")


@pytest.mark.flannel("20")
async def test_beside_another_flanneld_only_the_own_device_is_taken_over():
    from netagent.kernel import OverlayKernel  # noqa: PLC0415 - see overlay_kernel

    for vni, subnet in ((1, "10.5.{}.0"), (2, "10.6.{}.0")):
        sh(
            f"ip link add flannel.{vni} type vxlan id {vni} dev under0 local 192.0.2.1 dstport 8472 nolearning",
            f"ip address add {subnet.format(1)}/32 dev flannel.{vni}",
            f"ip link set flannel.{vni} up",
            f"ip route add {subnet.format(2)}/24 via {subnet.format(2)} dev flannel.{vni} onlink",
        )
    other = output("ip -d link show flannel.2"), output("ip route show dev flannel.2")
    index = output("ip -o link show flannel.1").split(":")[0]
    kernel = OverlayKernel(Instance(2), ["flannel.1"])
    desired = overlay(instance=Instance(2))
    await reconcile(lambda: desired, kernel)
    assert await kernel.dump() == desired
    assert output("ip -o link show flannel.1").split(":")[0] == index
    await reconcile(dict, kernel)
    kernel.close()
    assert (output("ip -d link show flannel.2"), output("ip route show dev flannel.2")) == other
    assert "flannel.1" not in output("ip link show")


async def test_a_node_without_any_ipv4_has_an_ipv6_overlay():
    with fresh_namespace():
        sh(
            "ip link add under0 type veth peer name under1",
            "ip address add 2001:db8::1/64 dev under0 nodad",
            "ip link set under0 up",
            "ip link set under1 up",
        )
        kernel = overlay_kernel()
        await reconcile(lambda: overlay(Family.V6), kernel)
        assert await kernel.dump() == overlay(Family.V6)
        kernel.close()


async def test_direct_routes_of_flanneld_are_taken_over_at_once(real):
    desired = overlay(backend=Vxlan(direct_routing=True), peers=range(2, 200))
    sh(*(f"ip route add 10.5.{number}.0/24 via 192.0.2.{number}" for number in range(2, 200)))
    await reconcile(lambda: desired, real)
    assert await real.dump() == desired
    assert "10.5.7.0/24 via 192.0.2.7 dev under0 proto 78" in output("ip route")


@pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="needs /dev/net/tun")
async def test_a_wireguard_device_that_nobody_serves_is_in_nobodys_way(real):
    sh("ip tuntap add flannel-wg mode tun", "ip tuntap add other mode tun", "ip link set flannel-wg up")
    await reconcile(overlay, real)
    assert await real.dump() == overlay()
    assert "flannel-wg" not in output("ip -o link show")
    assert "other" in output("ip -o link show")
    sh("ip link del other")


FOREIGN = ["10.6.0.0/16 via 192.0.2.9 dev under0", "10.7.0.0/16 dev flannel.1 scope link proto static"]


@pytest.mark.flannel("40")
async def test_foreign_routes_stay(real):
    await reconcile(overlay, real)
    sh(*(f"ip route add {route}" for route in FOREIGN))
    await reconcile(lambda: overlay(peers=()), real)
    assert all(route.split()[0] in output("ip route") for route in FOREIGN)
    assert await real.dump() == overlay(peers=())


@pytest.mark.flannel("B5")
async def test_a_foreign_route_in_a_peers_place_is_named_and_stays_and_the_others_go_in(real):
    sh("ip route add 10.5.3.0/24 via 192.0.2.9 dev under0 proto static")
    with pytest.raises(OSError, match=r"10\.5\.3\.0/24 via 192\.0\.2\.9 dev under0 proto 4") as refused:
        await reconcile(overlay, real)
    assert len(refused.value.failures) == 1
    missing = diff(overlay(), await real.dump())
    assert [str(key) for key in missing.put] == ["route"]
    assert not missing.drop
    sh("ip route del 10.5.3.0/24")


async def test_a_link_of_another_kind_with_our_name_is_left_alone(real):
    sh("ip link add flannel.1 type bridge")
    with pytest.raises(OSError, match="File exists"):
        await reconcile(overlay, real)
    assert "bridge" in output("ip -d link show flannel.1")
    sh("ip link del flannel.1")


async def test_cleanup_finds_our_device_by_its_mark_and_leaves_other_vxlan_devices(real):
    sh("ip link add vxlan9 type vxlan id 9 dev under0 dstport 4789")
    await reconcile(lambda: overlay(Family.V4, Family.V6), real)
    nameless = overlay_kernel()
    await reconcile(dict, nameless)
    assert "flannel" not in output("ip -o link show type vxlan")
    assert "vxlan9" in output("ip -o link show type vxlan")
    assert "proto 78" not in output("ip route") + output("ip -6 route")
    nameless.close()


async def test_routers_on_the_overlay_are_not_believed(real):
    await reconcile(overlay, real)
    assert output("cat /proc/sys/net/ipv6/conf/flannel.1/accept_ra").strip() == "0"


async def test_more_changes_than_one_sending_holds_all_go_in(real):
    real._channel.batch = 7
    desired = overlay(peers=range(2, 200))
    await reconcile(lambda: desired, real)
    assert await real.dump() == desired


@pytest.mark.flannel("B5")
async def test_each_of_many_failures_is_reported(real):
    real._channel.batch = 7
    nowhere = [Route(ip_network(f"10.9.{n}.0/24"), ip_address("203.0.113.1"), "under0", False, 0) for n in range(30)]
    elsewhere = Route(ip_network("10.8.0.0/24"), None, "under0", onlink=False, metric=METRIC[Family.V4])
    delta = Delta({each.key: each for each in [*nowhere, elsewhere]})
    with pytest.raises(OSError, match="Nexthop has invalid gateway") as refused:
        await real.apply(delta)
    assert [failure.operation.object for failure in refused.value.failures] == nowhere
    assert await real.dump() == {elsewhere.key: elsewhere}


CONVERGE = """
import asyncio, pickle, sys
from controlloop.reconcile import reconcile
from netagent.kernel import OverlayKernel
desired = pickle.load(sys.stdin.buffer)
for state in (desired, {}, desired):
    asyncio.run(reconcile(lambda: state, OverlayKernel()))
"""
ONLY_NET_ADMIN = [
    "--inh-caps",
    "-all,+net_admin",
    "--ambient-caps",
    "-all,+net_admin",
    "--bounding-set",
    "-all,+net_admin",
]
NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv from util-linux")
async def test_net_admin_is_the_only_capability_it_needs(real, tmp_path):
    desired = overlay(Family.V4, Family.V6, peers=range(2, 100))
    argv = [*NOBODY, *ONLY_NET_ADMIN, sys.executable, "-c", CONVERGE]
    done = subprocess.run(  # noqa: ASYNC221 - nothing else runs meanwhile
        argv,
        input=pickle.dumps(desired),
        cwd=ROOT,
        capture_output=True,
        check=False,
        preexec_fn=opened_up(tmp_path),
    )
    assert done.returncode == 0, done.stderr.decode()
    assert await real.dump() == desired
