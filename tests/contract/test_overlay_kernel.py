"""One contract for every overlay kernel: what is applied is what is dumped, and nothing foreign is touched.

The real kernel stands under it. What others do to it meanwhile: test_overlay_neighborhood.
"""

import os
import pickle
import shutil
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from overlay_node import lease, node, output, overlay

from controlloop.delta import Delta, diff
from controlloop.family import Family
from controlloop.reconcile import reconcile
from lab.enter import opened_up
from netagent.backends.vxlan import Vxlan
from netagent.desired import grounds, peer_state
from netagent.state import METRIC, Route
from subnet_alloc.model import Lease

ROOT = Path(__file__).parents[2]

if os.geteuid() != 0 or shutil.which("bridge") is None:
    pytest.skip("needs root for network namespaces, and iproute2 with bridge", allow_module_level=True)

pytestmark = pytest.mark.usefixtures("underlay")

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
