"""Leases of Nodes against an API server: what an agent follows."""

import asyncio
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import yaml
from apiclient import V4, P, annotations, attrs, client_of, keeping
from apiserver import Fault, node, running_apiserver
from deadline import PATIENCE_S

from controlloop.errors import CompactedError, UnavailableError
from controlloop.family import Family
from subnet_alloc.annotations import Annotations
from subnet_alloc.kubernetes import KubernetesLessor, KubernetesRegistry
from subnet_alloc.leasing import follow

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def server():
    async with running_apiserver() as made:
        made.put("nodes", node("me", "10.5.1.0/24"))
        yield made


@pytest.fixture
def lessor(server):
    return KubernetesLessor(client_of(server), Annotations(P), "me")


@pytest.fixture
def registry(server, tmp_path):
    return KubernetesRegistry(client_of(server), Annotations(P), "me", tmp_path / "net-conf.json")


@asynccontextmanager
async def following(registry):
    async with aclosing(follow(registry)) as steps, asyncio.timeout(PATIENCE_S):
        yield steps


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


@pytest.mark.flannel("A8")
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


@pytest.mark.flannel("21")
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
