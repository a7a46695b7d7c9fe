"""Leases of Nodes against an API server: what an agent writes, keeps and follows."""

import asyncio
from contextlib import aclosing, asynccontextmanager, suppress
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import yaml
from apiserver import Fault, node, running_apiserver

from controlloop.errors import CompactedError, OperatorError, UnavailableError
from controlloop.family import Family
from controlloop.kubernetes.access import Access
from controlloop.kubernetes.client import ApiClient
from controlloop.kubernetes.connection import Server
from controlloop.kubernetes.credentials import Stored
from subnet_alloc.annotations import Annotations
from subnet_alloc.codec import parse_config
from subnet_alloc.kubernetes import KubernetesLessor, KubernetesRegistry
from subnet_alloc.leasing import LeaseLostError, follow
from subnet_alloc.model import LeaseAttrs

ROOT = Path(__file__).parents[2]
P = "flannel.alpha.coreos.com/"
V4 = parse_config(b'{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}')
DUAL = parse_config(
    b'{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/48","Backend":{"Type":"vxlan"}}'
)
MAC = "82:4b:b6:2f:54:4e"


def attrs(number=1, mac=MAC, *, v6=False):
    public_ip = {Family.V4: ip_address(f"192.168.0.{number}")}
    data = {Family.V4: {"VNI": 1, "VtepMAC": mac}}
    if v6:
        public_ip[Family.V6] = ip_address(f"fd00::{number}")
        data[Family.V6] = {"VNI": 1, "VtepMAC": mac}
    return LeaseAttrs(public_ip, "vxlan", data)


def annotations(number=1, mac=MAC, **more):
    return {
        f"{P}kube-subnet-manager": "true",
        f"{P}backend-type": "vxlan",
        f"{P}backend-data": f'{{"VNI":1,"VtepMAC":"{mac}"}}',
        f"{P}public-ip": f"192.168.0.{number}",
        **more,
    }


@pytest.fixture
async def server():
    async with running_apiserver() as made:
        made.put("nodes", node("me", "10.5.1.0/24"))
        yield made


def client_of(server):
    return ApiClient(Access(Server("127.0.0.1", server.port, tls=False), Stored()), timeout_s=5.0, page=4)


@pytest.fixture
def lessor(server):
    return KubernetesLessor(client_of(server), Annotations(P), "me")


@pytest.fixture
def registry(server, tmp_path):
    return KubernetesRegistry(client_of(server), Annotations(P), "me", tmp_path / "net-conf.json")


def written(server):
    return server.get("nodes", "me")["metadata"]["annotations"]


@asynccontextmanager
async def keeping(lessor, own, server):
    before = len(server.requests("watch"))
    task = asyncio.ensure_future(lessor.keep(own))
    try:
        async with asyncio.timeout(10):
            await server.asked("watch", before + 1)
            yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, LeaseLostError):
            await task


@asynccontextmanager
async def following(registry):
    async with aclosing(follow(registry)) as steps, asyncio.timeout(20):
        yield steps


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
        async with asyncio.timeout(10):
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
    async with asyncio.timeout(20):
        await lessor.announce()
    condition = conditions(server)["NetworkUnavailable"]
    assert (condition["status"], condition["reason"]) == ("False", "FlannelIsUp")
    assert conditions(server)["Ready"]["status"] == "True"
    patches = len(server.requests("patch"))
    await lessor.announce()
    assert len(server.requests("patch")) == patches


async def test_a_condition_that_does_not_stick_is_set_again(server, lessor):
    server.faults.append(Fault("patch", insert=b'{"metadata":{"name":"me"},"status":{"conditions":[]}}'))
    async with asyncio.timeout(20):
        await lessor.announce()
    assert conditions(server)["NetworkUnavailable"]["status"] == "False"


# -- everybody's leases ---------------------------------------------------------------------------------------------


async def test_the_network_configuration_is_a_file(registry, tmp_path):
    assert await registry.network_config() is None
    (tmp_path / "net-conf.json").write_bytes(b"{}")
    assert await registry.network_config() == b"{}"


async def test_following_tells_what_joins_changes_and_leaves(server, registry):
    for number in range(2, 9):
        server.put("nodes", node(f"n{number}", f"10.5.{number}.0/24", annotations=annotations(number)))
    async with following(registry) as steps:
        snapshot, _ = await anext(steps)
        assert set(snapshot.leases) == {f"10.5.{number}.0-24" for number in range(2, 9)}
        assert snapshot.revision == server.revision
        server.put("nodes", node("n9", "10.5.9.0/24", annotations=annotations(9)))
        assert (await anext(steps))[1] == {"10.5.9.0-24"}
        server.annotate("n9", **{f"{P}backend-data": '{"VNI":1,"VtepMAC":"82:00:00:00:00:01"}'})
        assert (await anext(steps))[1] == {"10.5.9.0-24"}
        assert snapshot.leases["10.5.9.0-24"].attrs == attrs(9, "82:00:00:00:00:01")
        server.delete("nodes", "n9")
        assert (await anext(steps))[1] == {"10.5.9.0-24"}
        assert "10.5.9.0-24" not in snapshot.leases


@pytest.mark.parametrize("name", ["backend-data", "backend-v6-data", "public-ip", "public-ipv6"])
async def test_a_change_of_a_peer_in_one_family_alone_counts(server, registry, name):
    """The reading half of A8."""
    v6 = {f"{P}public-ipv6": "fd00::2", f"{P}backend-v6-data": "{}"}
    server.put("nodes", node("n2", "10.5.2.0/24", "fc00:5:0:2::/64", annotations=annotations(2, **v6)))
    value = {"public-ip": "192.168.0.77", "public-ipv6": "fd00::77"}.get(name, '{"VNI":9}')
    async with following(registry) as steps:
        await anext(steps)
        server.annotate("n2", **{P + name: value})
        assert (await anext(steps))[1] == {"10.5.2.0-24&fc00:5:0:2::-64"}


async def test_a_peers_subnet_may_change_while_it_lives(server, registry):
    server.put("nodes", node("n2", "10.5.2.0/24", annotations=annotations(2)))
    async with following(registry) as steps:
        snapshot, _ = await anext(steps)
        server.merge("nodes", "n2", {"spec": {"podCIDR": "10.5.7.0/24", "podCIDRs": ["10.5.7.0/24"]}})
        assert (await anext(steps))[1] == {"10.5.2.0-24", "10.5.7.0-24"}
        assert set(snapshot.leases) == {"10.5.7.0-24"}


async def test_who_is_none_of_the_overlay_is_left_out(server, registry):
    server.put("nodes", node("n2", "10.5.2.0/24"))
    server.put("nodes", node("n3", "10.5.3.0/24", annotations={**annotations(3), f"{P}kube-subnet-manager": "false"}))
    server.put("nodes", node("n4", annotations=annotations(4)))
    assert (await registry.list()).records == ()


async def test_bad_peers_are_named_and_harm_nobody(server, registry):
    good = annotations(2)
    server.put("nodes", node("good", "10.5.2.0/24", annotations=good))
    server.put("nodes", node("cidr", "10.5.3.0/33", annotations=annotations(3)))
    server.put("nodes", node("twice", "10.5.4.0/24", "10.5.5.0/24", annotations=annotations(4)))
    server.put("nodes", node("ip", "10.5.6.0/24", annotations={**good, f"{P}public-ip": "nonsense"}))
    server.put("nodes", node("no-ip", "10.5.7.0/24", annotations={f"{P}kube-subnet-manager": "true"}))
    server.put("nodes", node("default", "0.0.0.0/0", annotations=good))
    async with following(registry) as steps:
        snapshot, _ = await anext(steps)
        assert set(snapshot.leases) == {"10.5.2.0-24"}
        skipped = {str(one).partition(" (")[0] for one in snapshot.skipped.values()}
        assert sorted(one.partition(": the key")[0] for one in skipped) == [
            "0.0.0.0-0: 0.0.0.0/0 is no subnet for a node",
            '10.5.6.0-24: PublicIP "nonsense" is not an IPv4 address',
            "node cidr: podCIDR '10.5.3.0/33' is no subnet",
            "node no-ip: no public IP of the family of podCIDR 10.5.7.0/24",
            "node twice: podCIDRs 10.5.4.0/24, 10.5.5.0/24: more than one of IPv4",
        ]
        server.annotate("ip", **{f"{P}public-ip": "192.168.0.6"})
        assert (await anext(steps))[1] == {"10.5.6.0-24"}


async def test_backend_data_that_is_no_json_concerns_its_peer_alone(server, registry):
    broken = {**annotations(2), f"{P}backend-data": "{broken"}
    server.put("nodes", node("n2", "10.5.2.0/24", annotations=broken))
    async with following(registry) as steps:
        snapshot, _ = await anext(steps)
        assert snapshot.leases["10.5.2.0-24"].attrs.backend_data == {Family.V4: "{broken"}


async def test_of_two_nodes_with_one_subnet_the_own_one_has_it(server, registry, lessor):
    own = await lessor.acquire(attrs(), config=V4)
    server.put("nodes", node("a-thief", "10.5.1.0/24", annotations=annotations(66)))
    async with following(registry) as steps:
        snapshot, _ = await anext(steps)
        assert snapshot.leases == {own.record.key: own.lease}
        server.delete("nodes", "me")
        await anext(steps)
        assert snapshot.leases[own.record.key].attrs == attrs(66)


async def test_heartbeats_of_kubelets_are_no_news(server, registry):
    server.put("nodes", node("n2", "10.5.2.0/24", annotations=annotations(2)))
    async with aclosing(registry.watch((await registry.list()).revision)) as batches:
        server.merge("nodes", "n2", {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})
        batch = await anext(batches)
        assert (batch.revision, batch.put, batch.removed) == (server.revision, (), ())


async def test_the_own_lease_reads_as_it_was_written(server, registry, lessor):
    """The agent compares the two to notice theft."""
    server.annotate("me", **{f"{P}public-ip-overwrite": "203.0.113.9"})
    own = await lessor.acquire(attrs(), config=V4)
    async with following(registry) as steps:
        snapshot, _ = await anext(steps)
        assert snapshot.leases == {own.record.key: own.lease}
        assert snapshot.revision >= own.record.revision


async def test_following_outlives_outages_and_compaction(server, registry):
    async with following(registry) as steps:
        snapshot, _ = await anext(steps)
        server.drop_connections()
        server.faults.append(Fault("watch", insert=b"garbage\n"))
        server.put("nodes", node("n2", "10.5.2.0/24", annotations=annotations(2)))
        while set(snapshot.leases) != {"10.5.2.0-24"}:
            await anext(steps)
        listings = len(server.requests("list"))
        server.drop_connections()
        server.delete("nodes", "n2")
        server.put("nodes", node("n3", "10.5.3.0/24", annotations=annotations(3)))
        server.compact()
        while set(snapshot.leases) != {"10.5.3.0-24"}:
            await anext(steps)
        assert len(server.requests("list")) > listings


@pytest.mark.parametrize(
    "fault",
    [
        Fault("list", insert=b'{"metadata":{}}'),
        Fault("watch", insert=b'{"type":"BOOKMARK","object":{"metadata":{}}}\n'),
        Fault("watch", insert=b'{"type":"ADDED","object":{"metadata":{"name":"x","resourceVersion":"x"}}}\n'),
        Fault("watch", insert=b'{"type":"DELETED","object":{"metadata":{"name":"x"}}}\n'),
    ],
)
async def test_a_server_without_revisions_is_unavailable(server, registry, fault):
    server.faults.append(fault)
    with pytest.raises(UnavailableError, match=r"the API server's revision '.?' is no number"):
        async with aclosing(registry.watch((await registry.list()).revision)) as batches:
            await anext(batches)


async def test_the_manifest_grants_what_is_used_and_nothing_else(server, lessor, registry):
    own = await lessor.acquire(attrs(), config=V4)
    await lessor.announce()
    async with keeping(lessor, own, server), following(registry) as steps:
        await anext(steps)
    used = {(seen.verb, f"{seen.plural}/{seen.subresource}".rstrip("/")) for seen in server.seen}
    documents = yaml.safe_load_all((ROOT / "docs/kubernetes/netagent-rbac.yaml").read_text())
    (role,) = [document for document in documents if document["kind"] == "ClusterRole"]
    assert all(rule["apiGroups"] == [""] for rule in role["rules"])
    granted = {(verb, resource) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert used == granted


async def test_a_compacted_revision_says_so(server, registry):
    after = (await registry.list()).revision
    server.put("nodes", node("n2", "10.5.2.0/24"))
    server.compact()
    with pytest.raises(CompactedError):
        async with aclosing(registry.watch(after)) as batches:
            await anext(batches)
