"""The overlay among others: what they break in it, what they left in its place, and what is theirs and stays."""

import os
import shutil
from pathlib import Path

import pytest
from namespace import fresh_namespace
from overlay_node import output, overlay, overlay_kernel, sh

from controlloop.delta import diff
from controlloop.family import Family
from controlloop.reconcile import reconcile
from netagent.backends.vxlan import Vxlan
from netagent.instance import Instance

if os.geteuid() != 0 or shutil.which("bridge") is None:
    pytest.skip("needs root for network namespaces, and iproute2 with bridge", allow_module_level=True)

pytestmark = pytest.mark.usefixtures("underlay")

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
