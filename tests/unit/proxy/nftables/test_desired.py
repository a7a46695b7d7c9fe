"""What the table holds for given frontends."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from controlloop.delta import Delta, diff
from controlloop.family import Family
from controlloop.nft.state import Key
from proxy.frontends import (
    ANY_NODE_ADDRESS,
    Balance,
    Endpoint,
    Frontend,
    Protocol,
    Refusal,
    Scope,
    ServiceName,
    ServicePortName,
)
from proxy.nftables.desired import NftablesPlanner
from proxy.node import Interfaces, Surroundings

PODS = ip_network("10.244.0.0/16")
WEB, OTHER = ServiceName("default", "web"), ServiceName("default", "other")


def places(*addresses, local=True, weight=1):
    return tuple(Endpoint(ip_address(each), 8080, is_local=local, weight=weight) for each in addresses)


def frontend(*endpoints, address="10.96.0.1", port=80, service=WEB, local=True, **others):
    """On TCP, with endpoints by their addresses."""
    return Frontend(
        name=ServicePortName(service, "http"),
        address=ip_address(address),
        protocol=Protocol.TCP,
        port=port,
        balance=others.pop("balance", Balance.RANDOM),
        endpoints=places(*endpoints, local=local),
        **others,
    )


def node_port(*endpoints, port=30080, **others):
    return frontend(*endpoints, address=str(ANY_NODE_ADDRESS[Family.V4]), port=port, scope=Scope.NODE_PORT, **others)


def planned(*frontends, family=Family.V4, pods=PODS, **surroundings):
    planner = NftablesPlanner(Surroundings(family, pods=pods, **surroundings))
    delta = Delta()
    planner.replace(WEB, frontends, delta)
    return planner, delta


def elements(objects, container):
    return {key.element: value for key, value in objects.items() if key[:2] == ("element", container)}


def rules(objects, chain):
    return [rule.text for rule in objects[Key("chain", chain)].rules]


def named(objects, beginning):
    """The only chain whose name begins so."""
    (name,) = {key.name for key in objects if key.kind == "chain" and key.name.startswith(beginning)}
    return name


def test_a_frontend_is_one_lookup_and_one_element_for_each_endpoint():
    _, delta = planned(frontend("10.244.1.2", "10.244.2.2"))
    assert elements(delta.put, "services") == {"10.96.0.1 . tcp . 80": "goto cluster-random-tcp-2"}
    assert elements(delta.put, "tcp-endpoints") == {
        "10.96.0.1 . 80 . 0": "10.244.1.2 . 8080",
        "10.96.0.1 . 80 . 1": "10.244.2.2 . 8080",
    }


def test_a_node_port_is_known_by_its_port_alone():
    _, delta = planned(node_port("10.244.1.2"))
    assert elements(delta.put, "node-ports") == {"tcp . 30080": "goto external-node-port-random-tcp-1"}
    assert elements(delta.put, "tcp-node-port-endpoints") == {"30080 . 0": "10.244.1.2 . 8080"}
    assert not elements(delta.put, "cluster-ips")


def test_without_endpoints_connections_are_refused_and_nothing_is_translated():
    _, delta = planned(frontend(), node_port(refusal=Refusal.DROP))
    assert elements(delta.put, "no-endpoints") == {"10.96.0.1 . tcp . 80": "goto refuse"}
    assert elements(delta.put, "no-endpoint-node-ports") == {"tcp . 30080": "drop"}
    assert elements(delta.put, "service-networks") == {"10.96.0.0": ""}
    refusing = {"no-endpoints", "no-endpoint-node-ports", "cluster-ips", "service-networks"}
    assert {key.name for key in delta.put} == refusing


def test_shared_chains_stay_while_one_service_needs_them():
    planner, _ = planned(frontend("10.244.1.2"))
    planner.replace(OTHER, [frontend("10.244.1.3", address="10.96.0.2", service=OTHER)], Delta())
    delta = Delta()
    planner.replace(WEB, [], delta)
    assert Key("chain", "cluster-random-tcp-1") not in delta.drop
    planner.replace(OTHER, [], delta)
    assert Key("chain", "cluster-random-tcp-1") in delta.drop


def test_each_round_robin_frontend_counts_for_itself():
    two = [frontend("10.244.1.2", "10.244.1.3", balance=Balance.ROUND_ROBIN, port=port) for port in (80, 81)]
    planner, _ = planned(*two)
    assert sum(key.name.startswith("cluster-round-robin-") for key in planner.objects if key.kind == "chain") == 2


def test_an_endpoint_replaced_by_another_leaves_the_round_robin_counter_alone():
    planner, _ = planned(frontend("10.244.1.2", "10.244.1.3", balance=Balance.ROUND_ROBIN))
    delta = Delta()
    planner.replace(WEB, [frontend("10.244.1.2", "10.244.1.4", balance=Balance.ROUND_ROBIN)], delta)
    assert not [key for key in delta.put if key.kind == "chain"]


def test_callers_inside_who_get_other_endpoints_share_one_counter():
    """Pods and this node are two rules; a counter in each would be two turns."""
    one = frontend(
        "10.244.1.2", "10.244.1.3", inside=places("10.244.1.2", "10.244.2.2"),
        balance=Balance.ROUND_ROBIN, scope=Scope.LOAD_BALANCER,
    )  # fmt: skip
    planner, _ = planned(one)
    inside = named(planner.objects, "inside-round-robin-")
    local = rules(planner.objects, named(planner.objects, "local-round-robin-"))
    assert [rule.endswith(f"goto {inside}") for rule in local] == [True, True, False]
    assert "numgen inc mod 2 offset 32768" in rules(planner.objects, inside)[0]


def test_only_local_endpoints_can_call_themselves_here():
    _, delta = planned(frontend("10.244.1.2", local=False), frontend("10.244.1.3", port=81))
    assert elements(delta.put, "hairpin") == {"10.244.1.3 . 10.244.1.3": ""}


MARKING = {
    "a CIDR": ({"pods": PODS}, ["ip saddr != 10.244.0.0/16 meta mark set meta mark or 0x4000"]),
    "a bridge": ({"pods": Interfaces("cni0")}, ['iifname != "cni0" meta mark set meta mark or 0x4000']),
    "a prefix": (
        {"pods": Interfaces("veth", is_prefix=True)},
        ['iifname != "veth*" meta mark set meta mark or 0x4000'],
    ),
    "nobody can tell": ({"pods": None}, []),
    "all": ({"pods": PODS, "masquerade_all": True}, ["meta mark set meta mark or 0x4000"]),
    "all, nobody can tell": ({"pods": None, "masquerade_all": True}, ["meta mark set meta mark or 0x4000"]),
    "another bit": ({"pods": None, "masquerade_all": True, "masquerade_bit": 3}, ["meta mark set meta mark or 0x8"]),
}


@pytest.mark.parametrize("how", MARKING)
def test_who_is_masqueraded_when_calling_a_cluster_ip(how):
    surroundings, wanted = MARKING[how]
    planner, _ = planned(frontend("10.244.1.2"), **surroundings)
    assert rules(planner.objects, "cluster-random-tcp-1")[:-1] == wanted


@pytest.mark.parametrize("how", MARKING)
def test_surroundings_that_change_lead_where_they_would_have_led_from_the_start(how):
    surroundings, _ = MARKING[how]
    mixed = [frontend("10.244.1.2"), node_port("10.244.1.2", inside=places("10.244.1.2", "10.244.2.2"))]
    wanted, _ = planned(*mixed, **surroundings, node_port_addresses=frozenset({ip_address("192.0.2.1")}))
    planner, _ = planned(*mixed)
    state = dict(planner.objects)
    delta = Delta()
    planner.settle(
        Surroundings(Family.V4, **surroundings, node_port_addresses=frozenset({ip_address("192.0.2.1")})), delta
    )
    delta.apply_to(state)
    assert planner.objects == wanted.objects == state


def test_surroundings_that_did_not_change_change_nothing():
    planner, _ = planned(frontend("10.244.1.2"))
    delta = Delta()
    planner.settle(Surroundings(Family.V4, pods=PODS), delta)
    assert not delta


def test_node_ports_are_not_served_at_loopback():
    addresses = frozenset(map(ip_address, ["127.0.0.1", "192.0.2.1"]))
    planner, _ = planned(node_port_addresses=addresses)
    assert elements(planner.objects, "node-port-addresses") == {"192.0.2.1": ""}


def test_hooks_before_the_translation_are_there_for_those_who_limit_their_callers():
    planner, _ = planned(frontend())
    early = {Key("chain", "early-prerouting"), Key("chain", "early-output")}
    assert not early & planner.objects.keys()
    limited = frontend(scope=Scope.LOAD_BALANCER, sources=(ip_network("192.0.2.0/24"),))
    delta = Delta()
    planner.replace(WEB, [limited], delta)
    assert early < delta.put.keys()
    delta = Delta()
    planner.replace(WEB, [frontend()], delta)
    assert early < delta.drop.keys()


def test_equal_sources_are_one_chain():
    sources = (ip_network("192.0.2.0/24"), ip_network("192.0.2.128/25"), ip_network("203.0.113.7/32"))
    two = [
        frontend("10.244.1.2", address=address, scope=Scope.LOAD_BALANCER, sources=sources)
        for address in ("198.51.100.1", "198.51.100.2")
    ]
    planner, _ = planned(*two)
    chain = named(planner.objects, "sources-")
    assert rules(planner.objects, chain) == ["ip saddr != { 192.0.2.0/24, 203.0.113.7/32 } drop"]
    assert set(elements(planner.objects, "sources").values()) == {f"goto {chain}"}
    assert len(elements(planner.objects, "sources")) == 2


def test_the_frontends_of_a_service_port_remember_clients_together():
    sticky = {"affinity_s": 60}
    planner, _ = planned(frontend("10.244.1.2", **sticky), node_port("10.244.1.2", **sticky))
    (memory,) = [key.name for key in planner.objects if key.kind == "container" and key.name.startswith("clients-")]
    known = f"ip saddr @{memory} goto {memory.replace('clients', 'endpoint')}"
    assert rules(planner.objects, named(planner.objects, "cluster-affinity-"))[1] == known
    assert rules(planner.objects, named(planner.objects, "external-affinity-"))[1] == known


def test_an_endpoint_that_goes_takes_its_memory_along_and_no_other():
    planner, _ = planned(frontend("10.244.1.2", "10.244.1.3", affinity_s=60))
    delta = Delta()
    planner.replace(WEB, [frontend("10.244.1.3", affinity_s=60)], delta)
    gone = [key.name for key in delta.drop if key.kind == "container"]
    assert len(gone) == 1
    assert gone[0].endswith("/10.244.1.2/8080")
    assert not [key for key in delta.put if key.kind == "container"]


def test_the_number_of_rules_does_not_depend_on_the_number_of_services():
    def chains(services):
        planner = NftablesPlanner(Surroundings(Family.V4, pods=PODS))
        for number in range(services):
            service = ServiceName("default", f"s{number}")
            planner.replace(service, [frontend("10.244.1.2", address=f"10.96.1.{number}", service=service)], Delta())
        return sum(key.kind == "chain" for key in planner.objects)

    assert chains(200) == chains(1)


@pytest.mark.parametrize("balance", Balance)
@pytest.mark.parametrize("affinity_s", [0, 60])
def test_a_removed_service_leaves_nothing(balance, affinity_s):
    how = {"balance": balance, "affinity_s": affinity_s}
    planner, delta = planned(
        frontend("10.244.1.2", "10.244.1.3", **how), frontend(port=81), node_port("10.1.1.1", **how)
    )
    planner.replace(WEB, [], delta)
    assert not delta
    assert planner.objects == NftablesPlanner(Surroundings(Family.V4, pods=PODS)).objects


def test_frontends_of_the_other_family_are_left_to_their_own_table():
    _, delta = planned(frontend("10.244.1.2"), family=Family.V6, pods=None)
    assert not delta


STRANGE = ServiceName('a"; flush ruleset; #', "$(reboot)\n'\\ \udc80")


@pytest.mark.parametrize("how", [{"balance": Balance.ROUND_ROBIN}, {"affinity_s": 60}])
def test_no_text_of_an_object_reaches_the_ruleset_as_it_is(how):
    two = [replace(frontend("10.244.1.2", "10.244.1.3", **how), name=ServicePortName(STRANGE, port)) for port in "ab"]
    planner, delta = planned(*two)
    assert planner.objects
    for key in delta.put:
        assert not set(key.name) & set("\"';#$()\n\\ "), key


# Any order, any history

addresses = st.integers(1, 6).map(lambda number: f"10.244.1.{number}")
endpoint_lists = st.lists(addresses, max_size=4, unique=True).map(sorted)


@st.composite
def frontends(draw, service):
    number = [WEB, OTHER].index(service)
    scope = draw(st.sampled_from(Scope))
    address = {Scope.CLUSTER_IP: "10.96.0.", Scope.NODE_PORT: "0.0.0."}.get(scope, "192.0.2.")
    inside = draw(st.none() | endpoint_lists.map(lambda some: places(*some)))
    return frontend(
        *draw(endpoint_lists),
        address=f"{address}{0 if scope is Scope.NODE_PORT else number}",
        port=draw(st.integers(1, 3)) + 10 * number,
        service=service,
        scope=scope,
        balance=draw(st.sampled_from([each for each in Balance if each is not Balance.CONSISTENT])),
        inside=None if scope is Scope.CLUSTER_IP else inside,
        affinity_s=draw(st.sampled_from([0, 60])),
        refusal=draw(st.sampled_from(Refusal)),
        sources=draw(st.sampled_from([(), (ip_network("192.0.2.0/24"),)])),
    )


def one_for_each_key(some):
    return tuple({each.key: each for each in some}.values())


histories = st.lists(
    st.sampled_from([WEB, OTHER]).flatmap(
        lambda service: st.tuples(st.just(service), st.lists(frontends(service), max_size=3).map(one_for_each_key))
    ),
    max_size=6,
)


@given(histories, st.randoms(use_true_random=False))
def test_deltas_lead_to_the_desired_state_and_it_does_not_depend_on_history(history, chance):
    planner = NftablesPlanner(Surroundings(Family.V4, pods=PODS))
    state = dict(planner.objects)
    for service, some in history:
        delta = Delta()
        planner.replace(service, some, delta)
        delta.apply_to(state)
    assert state == planner.objects

    last = list(dict(history).items())
    chance.shuffle(last)
    again = NftablesPlanner(Surroundings(Family.V4, pods=PODS))
    for service, some in last:
        again.replace(service, some, Delta())
    assert again.objects == planner.objects
    assert not diff(again.objects, state)
