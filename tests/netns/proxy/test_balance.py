"""How connections are shared out among endpoints, counted over real ones."""

from collections import Counter

import pytest
from manifests import endpoint, port, service, slices
from network import ADDRESSES, CROWD_NETWORKS, FARM_NETWORKS
from rig import only_iptables, only_nftables

from controlloop.family import Family

kube_proxy = pytest.mark.kube_proxy
both_families = pytest.mark.parametrize("family", Family)

THREE = ("pod-1-1", "pod-1-2", "pod-2-1")
FOUR = (*THREE, "pod-2-2")

# Chance makes the chi-square of evenly shared connections larger once in 10**9 times (degrees of freedom 2 and 3).
LIMIT = {3: 41.45, 4: 44.85}


def balanced_by(how, name="web", at="cluster-ip", *, weights=None, **spec):
    annotations = {"nodenet.io/balance": how} | ({"nodenet.io/weights": weights} if weights else {})
    return service(name, at, annotations=annotations, **spec)


def chi_square(counts, shares):
    """How far counts are from what the shares let expect."""
    calls, parts = sum(counts.values()), sum(shares.values())
    assert counts.keys() <= shares.keys(), counts
    wanted = {name: calls * share / parts for name, share in shares.items()}
    return sum((counts[name] - number) ** 2 / number for name, number in wanted.items())


def crowd(family, count):
    """The first addresses of the crowd."""
    return [CROWD_NETWORKS[family][number] for number in range(1, count + 1)]


@kube_proxy("gap 5.1-4")
@both_families
@pytest.mark.parametrize("target", ["cluster-ip:80", "node-1:30080"])
def test_random_is_even(rig, family, target):
    rig.given(service(type="NodePort", ports=[port(node=30080)]), slices(*THREE))
    name, number = target.split(":")
    counts = rig.spread("client", name, int(number), family=family, count=600)
    assert chi_square(counts, dict.fromkeys(THREE, 1)) < LIMIT[3], counts


@kube_proxy("extra-7", "gap 5.1-2", "gap 5.7-5")
@both_families
def test_round_robin_is_exact(rig, family):
    rig.given(balanced_by("round-robin", type="NodePort", ports=[port(node=30080)]), slices(*THREE))
    for caller, target, number in (
        ("pod-1-3", "cluster-ip", 80),
        ("client", "node-1", 30080),
        ("node-1", "cluster-ip", 80),
    ):
        counts = rig.spread(caller, target, number, family=family, count=60)
        assert counts == dict.fromkeys(THREE, 20)


@kube_proxy("extra-7")
@both_families
def test_two_round_robin_services_called_in_turns_do_not_disturb_each_other(rig, family):
    """A counter of both would show each of them every other endpoint only."""
    rig.given(
        balanced_by("round-robin"),
        slices(*THREE),
        balanced_by("round-robin", "other", "cluster-ip-2"),
        slices(*THREE, of="other"),
    )
    ours, theirs = [], []
    for _ in range(6):
        ours += rig.call("pod-1-3", "cluster-ip", 80, family=family)
        theirs += rig.call("pod-1-3", "cluster-ip-2", 80, family=family, count=2)
    assert sorted(call.outcome for call in ours) == sorted(THREE * 2)
    assert sorted(call.outcome for call in theirs) == sorted(THREE * 4)


@kube_proxy("extra-7")
def test_round_robin_for_datagrams(rig):
    rig.given(
        balanced_by("round-robin", ports=[port(80, "UDP")]),
        slices(*THREE, ports=[port(8080, "UDP")]),
    )
    assert rig.spread("pod-1-3", "cluster-ip", 80, protocol="udp", count=60) == dict.fromkeys(THREE, 20)


@kube_proxy("gap 5.7-5")
@both_families
def test_weights_of_endpoints(rig, family):
    weights = ", ".join(f"{ADDRESSES['pod-1-1'][each]}=6, {ADDRESSES['pod-2-1'][each]}=3" for each in Family)
    rig.given(balanced_by("weighted", weights=weights), slices(*THREE))
    counts = rig.spread("pod-1-3", "cluster-ip", 80, family=family, count=600)
    assert chi_square(counts, {"pod-1-1": 6, "pod-1-2": 1, "pod-2-1": 3}) < LIMIT[3], counts


@kube_proxy("gap 5.7-5")
def test_weights_of_zones_and_of_nothing(rig):
    weights = f"zone-a=2, zone-b=1, {ADDRESSES['pod-2-2'][Family.V4]}=0"
    zones = [("pod-1-1", "zone-a"), ("pod-1-2", "zone-a"), ("pod-2-1", "zone-b"), ("pod-2-2", "zone-b")]
    rig.given(balanced_by("weighted", weights=weights), slices(*(endpoint(pod, zone=zone) for pod, zone in zones)))
    counts = rig.spread("pod-1-3", "cluster-ip", 80, count=600)
    assert chi_square(counts, {"pod-1-1": 2, "pod-1-2": 2, "pod-2-1": 1}) < LIMIT[3], counts


@kube_proxy("gap 5.7-5")
def test_equal_weights(rig):
    weights = ", ".join(f"{ADDRESSES[pod][family]}=7" for pod in THREE for family in Family)
    rig.given(balanced_by("weighted", weights=weights), slices(*THREE))
    counts = rig.spread("pod-1-3", "cluster-ip", 80, count=600)
    assert chi_square(counts, dict.fromkeys(THREE, 1)) < LIMIT[3], counts


@only_nftables
@both_families
@pytest.mark.parametrize("how", ["source-hash", "consistent"])
def test_a_client_stays_where_its_address_sends_it(rig, family, how):
    rig.given(balanced_by(how, type="NodePort", ports=[port(node=30080)]), slices(*FOUR))
    clients = crowd(family, 400)
    first = rig.landed(clients)
    assert rig.landed(clients) == first
    counts = {pod: first.count(pod) for pod in FOUR}
    assert chi_square(counts, dict.fromkeys(FOUR, 1)) < LIMIT[4], counts
    one = rig.call("client", "node-1", 30080, family=family, sources=clients[:1], count=20)
    assert len({call.outcome for call in one}) == 1


@kube_proxy("gap 5.1-3", "gap 5.7-14")
@only_nftables
@both_families
def test_consistent_hashing_moves_few(rig, family):
    """An endpoint that goes takes its own clients along and few others: at most 1/N + 5 % in all."""
    rig.given(balanced_by("consistent"), slices(*FOUR))
    clients = crowd(family, 1000)
    before = rig.landed(clients)
    rig.add(slices(*FOUR[:2], *FOUR[3:]))
    rig.forget_connections()
    after = rig.landed(clients)
    moved = sum(one != other for one, other in zip(before, after, strict=True))
    assert "pod-2-1" not in after
    assert moved <= (1 / 4 + 0.05) * len(clients)
    rig.add(slices(*FOUR))
    rig.forget_connections()
    assert rig.landed(clients) == before


@kube_proxy("gap 5.7-5")
@only_iptables
@pytest.mark.parametrize("how", ["source-hash", "consistent"])
def test_what_iptables_mode_cannot_do_is_named_and_done_at_random(rig, how):
    rig.given(balanced_by(how), slices(*THREE))
    (skipped,) = rig.tracker.skipped.values()
    assert "default/web" in skipped.name
    assert how in skipped.reason
    counts = rig.spread("pod-1-3", "cluster-ip", 80, count=600)
    assert chi_square(counts, dict.fromkeys(THREE, 1)) < LIMIT[3], counts


@kube_proxy("gap 5.1-2")
@pytest.mark.parametrize("how", ["random", "round-robin", "weighted", "source-hash", "consistent"])
def test_every_balance_at_every_address(rig, how):
    """With policies that make two choices of endpoints for one address."""
    made = balanced_by(
        how, type="LoadBalancer", ports=[port(node=30080)], balancer=["vip"], externalTrafficPolicy="Local"
    )
    rig.given(made, slices("pod-1-1", "pod-2-1"))
    for name, number, reached in (
        ("client", ("vip", 80), {"pod-1-1"}),
        ("client", ("node-1", 30080), {"pod-1-1"}),
        ("pod-1-3", ("vip", 80), {"pod-1-1", "pod-2-1"}),
        ("node-1", ("node-1", 30080), {"pod-1-1", "pod-2-1"}),
        ("pod-1-3", ("cluster-ip", 80), {"pod-1-1", "pod-2-1"}),
    ):
        by_source = how in {"source-hash", "consistent"} and rig.mode == "nftables"
        for family in Family:
            counts = rig.spread(name, *number, family=family, count=36)
            assert counts.keys() <= reached
            assert len(counts) == (1 if by_source else len(reached))


def test_from_one_balance_to_another(rig):
    rig.given(service(), slices(*THREE))
    rig.add(balanced_by("round-robin"))
    assert rig.spread("pod-1-3", "cluster-ip", 80, count=60) == dict.fromkeys(THREE, 20)
    rig.add(slices(*FOUR))
    assert rig.spread("pod-1-3", "cluster-ip", 80, count=60) == dict.fromkeys(FOUR, 15)
    rig.add(service())
    rig.expect(f"pod-1-3 -> cluster-ip:80 = {' '.join(FOUR)}")


def test_a_dozen_endpoints_in_three_slices(rig):
    many = [slices(*FOUR, name=f"web-{target}", ports=[port(target)]) for target in (8080, 8081, 8082)]
    rig.given(balanced_by("round-robin"), *many)
    servers = [pod + suffix for pod in FOUR for suffix in ("", ":8081", ":8082")]
    assert rig.spread("pod-1-3", "cluster-ip", 80, count=120) == dict.fromkeys(servers, 10)


@both_families
def test_a_thousand_endpoints(rig, family):
    """In ten slices, as Kubernetes cuts them. Each has its turn once, and with one more or less again."""
    rig.given(balanced_by("round-robin"), *farm(family, 1000))
    assert turns(rig, family, 1000) == Counter(str(FARM_NETWORKS[family][number]) for number in range(1, 1001))
    rig.add(*farm(family, 999))
    assert set(turns(rig, family, 999 * 2).values()) == {2}
    rig.add(*farm(family, 1001))
    assert set(turns(rig, family, 1001).values()) == {1}


def farm(family, count):
    """EndpointSlices of a hundred endpoints at the farm."""
    addresses = [str(FARM_NETWORKS[family][number]) for number in range(1, count + 1)]
    for number, start in enumerate(range(0, 1100, 100)):
        (made,) = slices(name=f"web-{number}", families=[family])
        some = addresses[start : start + 100]
        yield {**made, "endpoints": [{"addresses": [address], "nodeName": "node-2"} for address in some]}


def turns(rig, family, count):
    calls = rig.call("pod-1-3", "cluster-ip", 80, family=family, count=count)
    rig.board.hang_up(calls)
    return Counter(call.reached for call in calls)
