"""Leases of Nodes against an API server: what an agent writes and keeps."""

import asyncio
from ipaddress import ip_address, ip_network

import pytest
from apiclient import DUAL, MAC, V4, P, annotations, attrs, client_of, keeping
from apiserver import Fault, node, running_apiserver
from deadline import PATIENCE_S

from controlloop.errors import OperatorError, UnavailableError
from controlloop.family import Family
from subnet_alloc.annotations import Annotations
from subnet_alloc.kubernetes import KubernetesLessor
from subnet_alloc.leasing import LeaseLostError
from subnet_alloc.model import LeaseAttrs


@pytest.fixture
async def server():
    async with running_apiserver() as made:
        made.put("nodes", node("me", "10.5.1.0/24"))
        yield made


@pytest.fixture
def lessor(server):
    return KubernetesLessor(client_of(server), Annotations(P), "me")


def written(server):
    return server.get("nodes", "me")["metadata"]["annotations"]


# -- the own lease --------------------------------------------------------------------------------------------------


async def test_a_node_writes_what_flannel_writes(server, lessor):
    own = await lessor.acquire(attrs(), config=V4)
    assert written(server) == annotations()
    assert own.record.key == "10.5.1.0-24"
    assert own.lease.subnets == {Family.V4: ip_network("10.5.1.0/24")}
    assert own.lease.attrs == attrs()
    assert own.record.revision == server.revision


async def test_both_families_are_written_and_one_is_taken_back(server, lessor):
    server.put("nodes", node("me", "10.5.1.0/24", "fc00:5:0:1::/64"))
    own = await lessor.acquire(attrs(v6=True), config=DUAL)
    assert own.record.key == "10.5.1.0-24&fc00:5:0:1::-64"
    v6 = {f"{P}public-ipv6": "fd00::1", f"{P}backend-v6-data": f'{{"VNI":1,"VtepMAC":"{MAC}"}}'}
    assert written(server) == annotations(**v6)
    own = await lessor.acquire(attrs(), config=V4)
    assert own.record.key == "10.5.1.0-24"
    assert written(server) == annotations()


async def test_nothing_is_written_when_nothing_differs(server, lessor):
    await lessor.acquire(attrs(), config=V4)
    again = KubernetesLessor(client_of(server), Annotations(P), "me")
    await again.acquire(attrs(), config=V4)
    assert len(server.requests("patch")) == 1


@pytest.mark.flannel("A8")
@pytest.mark.parametrize("changed", [Family.V4, Family.V6])
async def test_a_change_in_one_family_alone_is_written(server, lessor, changed):
    """flannel compares the families one after the other and keeps the last result (A8)."""
    server.put("nodes", node("me", "10.5.1.0/24", "fc00:5:0:1::/64"))
    first = attrs(v6=True)
    await lessor.acquire(first, config=DUAL)
    data = {**first.backend_data, changed: {"VNI": 1, "VtepMAC": "82:00:00:00:00:01"}}
    own = await lessor.acquire(LeaseAttrs(first.public_ip, "vxlan", data), config=DUAL)
    assert own.lease.attrs.backend_data == data
    assert len(server.requests("patch")) == 2


async def test_a_backend_without_data_writes_null(server, lessor):
    own = await lessor.acquire(LeaseAttrs({Family.V4: ip_address("192.168.0.1")}, "host-gw"), config=V4)
    assert written(server)[f"{P}backend-data"] == "null"
    assert own.lease.attrs.backend_data == {}


async def test_what_others_wrote_on_the_node_stays(server, lessor):
    server.annotate("me", **{"other/x": "1"})
    await lessor.acquire(attrs(), config=V4)
    assert written(server) == annotations(**{"other/x": "1"})
    assert server.get("nodes", "me")["status"]["conditions"][0]["type"] == "Ready"


@pytest.mark.flannel("21")
async def test_the_administrators_address_is_the_one_published(server, lessor):
    server.annotate("me", **{f"{P}public-ip-overwrite": "203.0.113.9"})
    own = await lessor.acquire(attrs(), config=V4)
    assert written(server)[f"{P}public-ip"] == "203.0.113.9"
    assert own.lease.attrs.public_ip == {Family.V4: ip_address("203.0.113.9")}
    async with keeping(lessor, own, server) as kept:
        server.annotate("me", **{f"{P}public-ip-overwrite": "203.0.113.10"})
        with pytest.raises(LeaseLostError):
            await kept
    assert (await lessor.acquire(attrs(), config=V4)).lease.attrs.public_ip[Family.V4] == ip_address("203.0.113.10")


@pytest.mark.parametrize("text", ["x", "fd00::1", "0.0.0.0", "224.0.0.1", "203.0.113.9/24"])
async def test_a_bad_overwrite_is_named(server, lessor, text):
    server.annotate("me", **{f"{P}public-ip-overwrite": text})
    with pytest.raises(UnavailableError) as caught:
        await lessor.acquire(attrs(), config=V4)
    assert str(caught.value).startswith(f"node me: annotation {P}public-ip-overwrite '{text}' is not an IPv4 address")
    assert server.requests("patch") == []


async def test_the_administrator_may_say_where_the_node_is_reached(server, lessor):
    assert await lessor.wanted_public_ip() == {}
    server.annotate("me", **{f"{P}node-public-ip": "203.0.113.9", f"{P}node-public-ipv6": "fd00::9"})
    assert await lessor.wanted_public_ip() == {
        Family.V4: ip_address("203.0.113.9"),
        Family.V6: ip_address("fd00::9"),
    }


async def test_a_node_that_is_not_there_or_has_no_subnet_yet_is_waited_for(server, lessor):
    server.delete("nodes", "me")
    with pytest.raises(UnavailableError, match='nodes "me" not found'):
        await lessor.acquire(attrs(), config=V4)
    server.put("nodes", node("me"))
    with pytest.raises(UnavailableError, match="node me: podCIDR is not assigned yet"):
        await lessor.acquire(attrs(), config=V4)
    server.put("nodes", node("me", "10.5.1.0/24"))
    assert (await lessor.acquire(attrs(), config=V4)).record.key == "10.5.1.0-24"


async def test_an_old_node_has_only_the_single_field(server, lessor):
    server.put("nodes", {"metadata": {"name": "me"}, "spec": {"podCIDR": "10.5.9.0/24"}})
    assert (await lessor.acquire(attrs(), config=V4)).record.key == "10.5.9.0-24"


@pytest.mark.flannel("14")
@pytest.mark.parametrize(
    ("pod_cidrs", "config", "reason"),
    [
        (["10.6.1.0/24"], V4, "podCIDR 10.6.1.0/24 is not within the network 10.5.0.0/16"),
        (["10.4.0.0/15"], V4, "podCIDR 10.4.0.0/15 is not within the network 10.5.0.0/16"),
        (["10.0.0.0/8"], V4, "podCIDR 10.0.0.0/8 is not within the network 10.5.0.0/16"),
        (["fc00:5:0:1::/64"], V4, "podCIDR fc00:5:0:1::/64: none of IPv4, which the network has"),
        (["10.5.1.0/24"], DUAL, "podCIDR 10.5.1.0/24: none of IPv6, which the network has"),
        (["10.5.1.0/24", "fc00:6::/64"], DUAL, "podCIDR fc00:6::/64 is not within the network fc00:5::/48"),
        (["10.5.1.0/24", "10.5.2.0/24"], V4, "podCIDRs 10.5.1.0/24, 10.5.2.0/24: more than one of IPv4"),
        (["10.5.1.7/24"], V4, "podCIDR '10.5.1.7/24' is no subnet"),
        (["nonsense"], V4, "podCIDR 'nonsense' is no subnet"),
    ],
)
async def test_a_subnet_that_is_not_the_networks_is_refused(server, lessor, pod_cidrs, config, reason):
    server.put("nodes", node("me", *pod_cidrs))
    with pytest.raises(OperatorError) as caught:
        await lessor.acquire(attrs(v6=config is DUAL), config=config)
    assert str(caught.value) == f"node me: {reason}"
    assert server.requests("patch") == []


@pytest.mark.flannel("14")
@pytest.mark.parametrize("pod_cidr", ["10.5.0.0/24", "10.5.255.0/24", "10.5.128.0/17", "10.5.1.128/25"])
async def test_any_subnet_of_the_network_will_do(server, lessor, pod_cidr):
    server.put("nodes", node("me", pod_cidr))
    assert (await lessor.acquire(attrs(), config=V4)).lease.subnets == {Family.V4: ip_network(pod_cidr)}


async def test_without_the_right_to_write_the_error_names_it(server, lessor):
    server.forbidden = {("patch", "nodes/status")}
    with pytest.raises(UnavailableError, match=r"^patch nodes/status me: not permitted"):
        await lessor.acquire(attrs(), config=V4)


# -- keeping it -----------------------------------------------------------------------------------------------------


async def test_a_lease_is_kept_through_what_kubelets_do_and_through_outages(server, lessor):
    own = await lessor.acquire(attrs(), config=V4)
    async with keeping(lessor, own, server) as kept:
        server.merge("nodes", "me", {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})
        server.annotate("me", **{"other/x": "1"})
        server.drop_connections()
        await server.asked("watch", 2)
        server.faults.append(Fault("watch", status=500))
        server.drop_connections()
        await server.asked("watch", 4)
        server.drop_connections()
        server.put("nodes", node("other"))
        server.compact()
        await server.asked("list")
        await server.asked("watch", 6)
        assert not kept.done()
    assert len(server.requests("patch")) == 1


@pytest.mark.parametrize("name", ["public-ip", "backend-data", "backend-type", "kube-subnet-manager"])
@pytest.mark.parametrize("value", ["other", None])
async def test_somebody_who_changes_the_lease_is_noticed_and_set_right(server, lessor, name, value):
    own = await lessor.acquire(attrs(), config=V4)
    async with keeping(lessor, own, server) as kept:
        server.annotate("me", **{f"{P}{name}": value})
        with pytest.raises(LeaseLostError, match=f"node me: somebody else wrote {P}{name}"):
            await kept
    again = await lessor.acquire(attrs(), config=V4)
    assert again.lease == own.lease
    assert written(server) == annotations()


async def test_a_change_that_only_a_listing_shows_is_noticed(server, lessor):
    own = await lessor.acquire(attrs(), config=V4)
    server.annotate("me", **{f"{P}public-ip": "192.168.0.99"})
    server.compact()
    with pytest.raises(LeaseLostError):
        async with asyncio.timeout(PATIENCE_S):
            await lessor.keep(own)


async def test_another_subnet_on_a_living_node_is_noticed(server, lessor):
    own = await lessor.acquire(attrs(), config=V4)
    async with keeping(lessor, own, server) as kept:
        server.merge("nodes", "me", {"spec": {"podCIDR": "10.5.7.0/24", "podCIDRs": ["10.5.7.0/24"]}})
        with pytest.raises(LeaseLostError, match=r"node me: podCIDR is 10\.5\.7\.0/24, not 10\.5\.1\.0-24"):
            await kept
    assert (await lessor.acquire(attrs(), config=V4)).record.key == "10.5.7.0-24"
    server.put("nodes", node("me", "10.6.0.0/24", annotations=annotations()))
    with pytest.raises(UnavailableError, match=r"10\.6\.0\.0/24 is not within the network"):
        await lessor.acquire(attrs(), config=V4)


async def test_a_node_that_is_deleted_is_noticed(server, lessor):
    own = await lessor.acquire(attrs(), config=V4)
    async with keeping(lessor, own, server) as kept:
        server.delete("nodes", "me")
        with pytest.raises(LeaseLostError, match="node me is gone"):
            await kept


async def test_two_who_undo_each_other_write_ever_more_slowly(server, lessor):
    loop = asyncio.get_running_loop()
    await lessor.acquire(attrs(), config=V4)
    began = loop.time()
    for _ in range(3):
        server.annotate("me", **{f"{P}public-ip": "192.168.0.99"})
        await lessor.acquire(attrs(), config=V4)
    assert loop.time() - began > 0.6


# -- the condition --------------------------------------------------------------------------------------------------


def conditions(server):
    return {one["type"]: one for one in server.get("nodes", "me")["status"]["conditions"]}


async def test_the_node_says_that_its_network_is_up_however_often_it_takes(server, lessor):
    server.faults += [Fault("patch", status=500), Fault("patch", drop_after=5), Fault("get", status=429)]
    async with asyncio.timeout(PATIENCE_S):
        await lessor.announce()
    condition = conditions(server)["NetworkUnavailable"]
    assert (condition["status"], condition["reason"]) == ("False", "FlannelIsUp")
    assert conditions(server)["Ready"]["status"] == "True"
    patches = len(server.requests("patch"))
    await lessor.announce()
    assert len(server.requests("patch")) == patches


async def test_a_condition_that_does_not_stick_is_set_again(server, lessor):
    server.faults.append(Fault("patch", insert=b'{"metadata":{"name":"me"},"status":{"conditions":[]}}'))
    async with asyncio.timeout(PATIENCE_S):
        await lessor.announce()
    assert conditions(server)["NetworkUnavailable"]["status"] == "False"


async def test_a_condition_that_is_somebody_elses_is_left_alone(server):
    await KubernetesLessor(client_of(server), Annotations(P), "me", set_condition=False).announce()
    assert server.seen == []
