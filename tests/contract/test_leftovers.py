"""What an earlier netproxy in another mode or variant left goes, and what the running one has stays."""

import shutil

import pytest

from controlloop.command import run
from controlloop.delta import diff
from controlloop.family import Family
from controlloop.iptables.kernel import Variant
from controlloop.reconcile import reconcile
from proxy import leftovers as module
from proxy.config import ProxyMode
from proxy.counting.desired import CountingPlanner
from proxy.counting.kernel import CountingBackend
from proxy.iptables.desired import IptablesPlanner
from proxy.iptables.kernel import IptablesBackend, holds_kube_proxy
from proxy.leftovers import cleanup, leftovers, remove_rules, tell_of_kube_proxy
from proxy.nftables.desired import NftablesPlanner
from proxy.nftables.kernel import NftablesBackend
from proxy.node import Surroundings

pytestmark = pytest.mark.usefixtures("netns")


@pytest.fixture(params=list(Variant), ids=lambda variant: variant.value)
def variant(request):
    return request.param


@pytest.fixture(params=list(Family), ids=lambda family: family.nft)
def family(request):
    return request.param


async def write_everything(family):
    surroundings = Surroundings(family)
    held = [(CountingPlanner(surroundings), CountingBackend(family))]
    held += [(NftablesPlanner(surroundings), NftablesBackend(family))]
    held += [(IptablesPlanner(surroundings), IptablesBackend(family, each)) for each in Variant]
    for planner, backend in held:
        await reconcile(lambda p=planner: p.objects, backend)
    return held


async def whole(held):
    return [not diff(planner.objects, await backend.dump()) for planner, backend in held]


async def test_in_iptables_mode_the_hosts_variant_stays(family, variant, monkeypatch):
    async def the_hosts(_):
        return variant

    monkeypatch.setattr(module, "detect_variant", the_hosts)
    held = await write_everything(family)
    assert not await remove_rules(await leftovers(ProxyMode.IPTABLES, counts=False))
    assert await whole(held) == [False, False, variant is Variant.NFT, variant is Variant.LEGACY]


async def test_in_nftables_mode_both_variants_go(family):
    held = await write_everything(family)
    assert not await remove_rules(await leftovers(ProxyMode.NFTABLES, counts=True))
    assert await whole(held) == [True, True, False, False]


async def test_cleanup_leaves_nothing(family):
    held = await write_everything(family)
    await cleanup()
    assert [dict(await backend.dump()) for _, backend in held] == [{}, {}, {}, {}]


async def test_rules_of_kube_proxy_are_told_and_stay(family, variant, caplog):
    await tell_of_kube_proxy()
    assert not caplog.records
    program = f"{'iptables' if family is Family.V4 else 'ip6tables'}-{variant.value}"
    await run([program, "-w", "-t", "nat", "-N", "KUBE-SERVICES"])
    assert await holds_kube_proxy(family, variant)
    await tell_of_kube_proxy()
    (record,) = caplog.records
    assert record.fields == {"family": family.nft, "variant": variant.value}
    await cleanup()
    assert await holds_kube_proxy(family, variant)


async def test_cleanup_does_what_it_can_without_iptables(family, monkeypatch):
    planner, backend = NftablesPlanner(Surroundings(family)), NftablesBackend(family)
    await reconcile(lambda: planner.objects, backend)
    which = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda program, path: None if "tables" in program else which(program, path=path)
    )
    await cleanup()
    assert not await backend.dump()
