"""`netctl apply` and `delete` on every store: what lacks an address or port is given one, once, and keeps it."""

import asyncio
from itertools import count
from json import loads
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from builders import json, make_endpoint_slice, make_service
from hypothesis import given
from hypothesis import strategies as st

from controlloop.errors import OperatorError
from controlloop.etcd import Etcd
from controlloop.flags import run_command
from netctl.apply.allocation import lacking, parse_pools
from netctl.apply.objects import Applier, Ranges, apply_all, check, delete_all
from netctl.apply.stores import DirectoryStore, EtcdStore
from netctl.main import netctl
from proxy.objects import Kind, ObjectName

prefixes = (f"/test/apply/{number}" for number in count())
POOLS = parse_pools("10.96.0.0/28", "30000-30002")


def bare(name="web", *ports, **spec):
    made = make_service(name=name, cluster_ips=(), ports=[(f"p{port}", "TCP", port) for port in ports or (80,)])
    made["spec"] = {
        key: value for key, value in {**made["spec"], **spec}.items() if key not in ("clusterIP", "clusterIPs")
    }
    return made


def key(made):
    return Kind(made["kind"]), ObjectName("default", made["metadata"]["name"])


@pytest.fixture
async def etcd(etcd_server):
    made = Etcd([etcd_server.client_url])
    yield made
    await made.close()


@pytest.fixture(params=["etcd", "directory"])
def store(request, tmp_path):
    if request.param == "directory":
        return DirectoryStore(tmp_path)
    return EtcdStore(request.getfixturevalue("etcd"), next(prefixes))


async def put(store, *objects):
    applier = Applier(store, POOLS)
    return [await applier.apply(key(made), json(made)) for made in objects]


async def stored(store, name="web"):
    return loads((await store.get((Kind.SERVICE, ObjectName("default", name)))).body)["spec"]


async def test_what_is_missing_is_given_and_kept(store):
    assert await put(store, bare("web", 80, 443, type="NodePort")) == ["created"]
    first = await stored(store)
    assert first["clusterIPs"] == [first["clusterIP"]]
    assert first["clusterIP"].startswith("10.96.0.")
    assert len({port["nodePort"] for port in first["ports"]}) == 2
    assert await put(store, bare("web", 80, 443, type="NodePort")) == ["unchanged"]
    assert await put(store, bare("web", 443, type="NodePort")) == ["configured"]
    second = await stored(store)
    assert second["clusterIP"] == first["clusterIP"]
    assert second["ports"][0]["nodePort"] == first["ports"][1]["nodePort"]


async def test_no_two_services_get_the_same(store):
    taken = make_service(name="taken", cluster_ips=["10.96.0.5"])
    assert await put(store, taken, *(bare(f"s-{number}") for number in range(13))) == ["created"] * 14
    addresses = {(await stored(store, f"s-{number}"))["clusterIP"] for number in range(13)}
    assert addresses == {f"10.96.0.{number}" for number in range(1, 15)} - {"10.96.0.5"}
    with pytest.raises(OperatorError, match=r"Service default/late: none left of clusterips 10.96.0.1 to 10.96.0.14"):
        await put(store, bare("late"))
    await delete_all(store, {key(bare("s-3")): b""})
    assert await put(store, bare("late")) == ["created"]


async def test_what_a_service_gives_up_is_free_again(store):
    await put(store, bare("web", 80, 443, 8080, type="NodePort"))
    with pytest.raises(OperatorError, match="none left of nodeports 30000 to 30002"):
        await put(store, bare("other", type="NodePort"))
    await put(store, bare("web", 80, 443, type="NodePort"))
    assert await put(store, bare("other", type="NodePort")) == ["created"]


async def test_other_objects_are_written_as_they_are(store, capsys):
    made = make_endpoint_slice()
    objects = {key(made): json(made)}
    for outcome in ("created", "unchanged"):
        await apply_all(store, objects, Ranges())
        assert capsys.readouterr().out == f"endpointslice/default/web-1 {outcome}\n"
    for outcome in ("deleted", "not found"):
        await delete_all(store, objects)
        assert capsys.readouterr().out == f"endpointslice/default/web-1 {outcome}\n"


async def test_many_who_apply_at_once_never_give_the_same(etcd, etcd_server):
    """Each has a connection of its own, as each is a process of its own."""
    prefix = next(prefixes)
    clients = [Etcd([etcd_server.client_url]) for _ in range(7)]
    services = [bare(f"s-{number}") for number in range(6)] + [bare("s-0")]
    outcomes = await asyncio.gather(
        *(put(EtcdStore(client, prefix), made) for client, made in zip(clients, services, strict=True))
    )
    assert sorted(outcome for (outcome,) in outcomes).count("created") == 6
    store = EtcdStore(etcd, prefix)
    addresses = [(await stored(store, f"s-{number}"))["clusterIP"] for number in range(6)]
    assert len(set(addresses)) == 6
    reserved = {item.key.rpartition("/")[2] for item in (await etcd.list(f"{prefix}/allocations/")).items}
    assert reserved == set(addresses), "what was reserved in a lost race is given back"
    for client in clients:
        await client.close()


async def test_what_was_reserved_before_a_crash_is_used_by_the_next_try(etcd):
    store = EtcdStore(etcd, next(prefixes))
    assert await store.reserve("clusterips/10.96.0.9", ObjectName("default", "web"))
    assert not await store.reserve("clusterips/10.96.0.9", ObjectName("default", "other"))
    await put(store, bare())
    assert (await stored(store))["clusterIP"] == "10.96.0.9"


async def test_ranges_come_from_flags_else_from_the_store(etcd):
    prefix = next(prefixes)
    store = EtcdStore(etcd, prefix)
    await etcd.put(f"{prefix}/config", b'{"serviceClusterIPRange": "10.9.0.0/24", "serviceNodePortRange": "4000-4000"}')
    await apply_all(store, {key(bare(type="NodePort")): json(bare(type="NodePort"))}, Ranges())
    spec = await stored(store)
    assert spec["clusterIP"].startswith("10.9.0.")
    assert spec["ports"][0]["nodePort"] == 4000
    await apply_all(store, {key(bare("b")): json(bare("b"))}, Ranges(addresses="10.8.0.0/24"))
    assert (await stored(store, "b"))["clusterIP"].startswith("10.8.0.")
    await etcd.put(f"{prefix}/config", b'{"serviceClusterIPRange": 7}')
    with pytest.raises(OperatorError, match=f"{prefix}/config: Expected `str`"):
        await apply_all(store, {}, Ranges())
    with pytest.raises(OperatorError, match="--service-node-port-range: '9' is not FIRST-LAST"):
        await Ranges("10.8.0.0/24", "9").pools(DirectoryStore("/nowhere"))


async def test_what_somebody_wrote_by_hand_is_not_written_again(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(json(make_service()))
    with pytest.raises(OperatorError, match=r"Service default/web stands in .*mine.yaml: change it there"):
        await put(DirectoryStore(tmp_path), bare())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_the_command_writes_into_a_directory_that_the_proxy_reads(tmp_path, capsys):
    manifests, source = tmp_path / "manifests", tmp_path / "web.json"
    source.write_bytes(json(bare()))
    assert run_command(netctl, ["apply", "-f", str(source), "--manifests", str(manifests)]) == 2
    assert capsys.readouterr().err == f"netctl: --manifests {manifests}: No such file or directory\n"
    manifests.mkdir()
    assert run_command(netctl, ["apply", "-f", str(source), "--manifests", str(manifests)]) == 0
    assert [path.name for path in manifests.iterdir()] == ["service.default.web.json"]
    assert run_command(netctl, ["delete", "-f", str(source), "--manifests", str(manifests)]) == 0
    assert capsys.readouterr().out == "service/default/web created\nservice/default/web deleted\n"
    assert list(manifests.iterdir()) == []


def test_an_option_of_etcd_that_makes_no_sense_is_named(tmp_path, capsys):
    (tmp_path / "web.json").write_bytes(json(bare()))
    argv = ["apply", "-f", str(tmp_path), "--etcd-certfile", "c"]
    assert run_command(netctl, argv) == 2
    assert capsys.readouterr().err == "netctl: --etcd-certfile c: needs --etcd-keyfile as well\n"


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 70_000),
    st.sampled_from(["", "None", "10.96.0.5", "10.096.0.5", "fd00::1", "RequireDualStack", "PreferDualStack"]),
    st.sampled_from(["LoadBalancer", "NodePort", "ExternalName", "ClusterIP", "Local", "Cluster", "TCP", "UDP"]),
    st.lists(st.sampled_from(["10.96.0.5", "fd00::1", "IPv4", "IPv6", 7, None, ""]), max_size=2),
)
PORTS = st.fixed_dictionaries({"port": st.sampled_from([80, 443, 0])}, optional={"nodePort": ODD, "name": ODD})
FIELDS = (
    "clusterIP",
    "clusterIPs",
    "type",
    "ipFamilies",
    "ipFamilyPolicy",
    "externalTrafficPolicy",
    "healthCheckNodePort",
)
SPECS = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, ODD) | {"ports": st.lists(PORTS, max_size=2)})


@given(SPECS, SPECS)
def test_whatever_a_service_says_is_refused_or_made_whole(one, other):
    with TemporaryDirectory() as directory:
        store = DirectoryStore(Path(directory))
        for spec in (one, other):
            made = {
                "metadata": {"name": "web", "namespace": "default"},
                "kind": "Service",
                "apiVersion": "v1",
                "spec": spec,
            }
            try:
                check({key(made): json(made)})
                asyncio.run(put(store, made))
            except OperatorError:
                continue
            assert asyncio.run(put(store, made)) == ["unchanged"]
            assert lacking({"spec": asyncio.run(stored(store))}, POOLS) == []
