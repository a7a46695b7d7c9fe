"""What the table holds for given frontends."""

from ipaddress import ip_address, ip_network

from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.nft.state import Key
from proxy.frontends import Balance, Endpoint, Frontend, Protocol, ServiceName, ServicePortName
from proxy.nftables.desired import NftablesPlanner
from proxy.node import Surroundings

CIDR = ip_network("10.244.0.0/16")


def frontend(*endpoints, address="10.96.0.1", port=80, name="web", balance=Balance.RANDOM, local=True):
    places = tuple(Endpoint(ip_address(e), 8080, is_local=local) for e in endpoints)
    owner = ServicePortName(ServiceName("default", name), "http")
    return Frontend(owner, ip_address(address), Protocol.TCP, port, balance, places)


def planned(*frontends, family=Family.V4, cidr=CIDR):
    planner = NftablesPlanner(Surroundings(family, pods=cidr))
    delta = Delta()
    planner.replace(ServiceName("default", "web"), frontends, delta)
    return planner, delta


def elements(delta_side, container):
    return {key.element: value for key, value in delta_side.items() if key[:2] == ("element", container)}


def test_a_frontend_is_one_lookup_and_one_element_for_each_endpoint():
    _, delta = planned(frontend("10.244.1.2", "10.244.2.2"))
    assert elements(delta.put, "services") == {"10.96.0.1 . tcp . 80": "goto random-tcp-2"}
    assert elements(delta.put, "tcp-endpoints") == {
        "10.96.0.1 . 80 . 0": "10.244.1.2 . 8080",
        "10.96.0.1 . 80 . 1": "10.244.2.2 . 8080",
    }


def test_without_endpoints_connections_are_refused_and_nothing_is_translated():
    _, delta = planned(frontend())
    assert {key.name for key in delta.put} == {"no-endpoints"}


def test_random_chains_are_shared_and_stay_while_one_service_needs_them():
    planner, _ = planned(frontend("10.244.1.2"))
    planner.replace(
        ServiceName("default", "other"), [frontend("10.244.1.3", address="10.96.0.2", name="other")], Delta()
    )
    delta = Delta()
    planner.replace(ServiceName("default", "web"), [], delta)
    assert Key("chain", "random-tcp-1") not in delta.drop
    planner.replace(ServiceName("default", "other"), [], delta)
    assert Key("chain", "random-tcp-1") in delta.drop


def test_each_round_robin_frontend_counts_for_itself():
    one = frontend("10.244.1.2", "10.244.1.3", balance=Balance.ROUND_ROBIN)
    two = frontend("10.244.1.2", "10.244.1.3", balance=Balance.ROUND_ROBIN, port=81)
    planner, _ = planned(one, two)
    assert sum(key.name.startswith("round-robin-") for key in planner.objects if key.kind == "chain") == 2


def test_only_local_endpoints_can_call_themselves_here():
    _, delta = planned(frontend("10.244.1.2", local=False))
    assert not elements(delta.put, "hairpin")


def test_the_number_of_rules_does_not_depend_on_the_number_of_services():
    planner = NftablesPlanner(Surroundings(Family.V4, pods=CIDR))
    for number in range(200):
        service = ServiceName("default", f"s{number}")
        planner.replace(service, [frontend("10.244.1.2", address=f"10.96.1.{number}", name=service.name)], Delta())
    assert sum(key.kind == "chain" for key in planner.objects) == 8


def test_a_removed_service_leaves_nothing():
    planner, delta = planned(frontend("10.244.1.2"), frontend(port=81))
    planner.replace(ServiceName("default", "web"), [], delta)
    assert not delta
    assert planner.objects == NftablesPlanner(Surroundings(Family.V4, pods=CIDR)).objects


def test_frontends_of_the_other_family_are_left_to_their_own_table():
    _, delta = planned(frontend("10.244.1.2"), family=Family.V6, cidr=None)
    assert not delta
