import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

import pytest
from five_services import five_services
from hypothesis import given
from hypothesis import strategies as st
from iptables_plans import DNS, LISTED, PODS, WEB, chains, endpoint, frontend, node_port, planned, service_chains
from iptables_ruleset import Ruleset, reached
from msgspec.structs import replace

from controlloop.address import host
from controlloop.delta import Delta, diff
from controlloop.family import Family
from controlloop.iptables.transaction import render
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
from proxy.iptables.balancing import Memory, probability
from proxy.iptables.chains import MAX_NAME, OURS, SET_TABLE
from proxy.iptables.desired import IptablesPlanner
from proxy.node import Interfaces, Surroundings

GOLDEN = Path(__file__).parents[3] / "golden"
OF_WEB = '-m comment --comment "default/web:http" '


def planned_five_services():
    frontends = [one for each in five_services().values() for one in each]
    return planned(*frontends, localhost_node_ports=True, health_check_ports=frozenset({31000}))


@pytest.mark.kube_proxy("6.1-1")
@pytest.mark.kube_proxy("gap 5.7-10")
def test_five_services_as_a_whole_ruleset():
    """Comments in the file are for people; everything else is what iptables-restore is given."""
    golden = (GOLDEN / "five_services.iptables").read_text()
    lines = [line for line in golden.splitlines() if line and not line.startswith("#")]
    assert render(diff(planned_five_services(), {}), OURS).splitlines() == lines


@pytest.mark.parametrize(
    ("left", "text"),
    [(2, "0.50000000000"), (3, "0.33333333349"), (5, "0.20000000019"), (7, "0.14285714272"), (1000, "0.00100000016")],
)
def test_probability_is_printed_as_the_kernel_keeps_it(left, text):
    assert probability(1, left) == text


@given(st.integers(2, 5000))
def test_probability_survives_the_kernel(left):
    """What iptables makes of the text is what it prints again."""
    assert f"{round(float(probability(1, left)) * 2**31) / 2**31:.11f}" == probability(1, left)


def test_each_random_rule_takes_its_share_of_what_the_ones_before_it_left_over():
    (rules,) = service_chains(planned(frontend(endpoints=("10.244.1.1", "10.244.1.2", "10.244.1.3")), cidr=None))
    assert rules == (
        "-p tcp -m statistic --mode random --probability 0.33333333349 -j DNAT --to-destination 10.244.1.1:8080",
        "-p tcp -m statistic --mode random --probability 0.50000000000 -j DNAT --to-destination 10.244.1.2:8080",
        f"-p tcp {OF_WEB}-j DNAT --to-destination 10.244.1.3:8080",
    )


@pytest.mark.parametrize("cidr", [None, ip_network("0.0.0.0/0")])
def test_without_a_network_outside_of_the_pods_nothing_is_marked(cidr):
    assert service_chains(planned(frontend(), cidr=cidr)) == [
        (f"-p tcp {OF_WEB}-j DNAT --to-destination 10.244.1.2:8080",)
    ]


def test_ipv6_takes_the_same_path():
    web = frontend(address="fd00::1", endpoints=(endpoint("fd00:1::2", is_local=True),))
    idle = frontend(address="fd00::2", protocol=Protocol.UDP, endpoints=())
    objects = planned(web, idle, family=Family.V6, cidr=ip_network("fd00:1::/64"))
    assert service_chains(objects) == [
        (
            "! -s fd00:1::/64 -j MARK --set-xmark 0x4000/0x4000",
            f"-p tcp {OF_WEB}-j DNAT --to-destination [fd00:1::2]:8080",
        )
    ]
    assert objects["nat", "NETPROXY-HAIRPIN"] == ("-s fd00:1::2/128 -d fd00:1::2/128 -j MASQUERADE --random-fully",)
    (reject,) = objects["filter", "NETPROXY-REFUSED"]
    assert reject.startswith("-d fd00::2/128 -p udp -m udp --dport 80 ")
    assert reject.endswith(" -j REJECT --reject-with icmp6-port-unreachable")


@pytest.mark.parametrize("memory", Memory)
@pytest.mark.parametrize("affinity_s", [0, 3600])
def test_the_last_rule_of_a_chain_that_translates_says_whose_it_is(memory, affinity_s):
    """Whoever waits for a name in front of it would let every packet pay for what only people read."""
    pair = {"endpoints": ("10.244.1.2", "10.244.1.3"), "affinity_s": affinity_s}
    objects = planned(frontend(**pair), node_port(**pair), memory=memory)
    (rules,) = service_chains(objects)
    assert ["comment" in rule for rule in rules] == [False] * (len(rules) - 1) + [True]
    assert rules[-1].startswith("-p tcp ")
    assert f" {OF_WEB}-j DNAT --to-destination 10.244.1.3:8080" in rules[-1]
    assert "comment" not in render(
        diff({key: rules for key, rules in objects.items() if "SVC" not in key[1]}, {}), OURS
    )


def test_packets_for_others_do_not_ask_for_a_state():
    """A comparison with an address is less work than a question to conntrack, and nothing at all is still less."""
    none = planned(frontend())
    assert "REFUSED" not in " ".join(none["filter", "NETPROXY-FORWARD"])
    assert "HAIRPIN" not in " ".join(none["nat", "NETPROXY-POSTROUTING"])
    some = planned(
        frontend(endpoints=(endpoint("10.244.1.2", is_local=True),)), frontend(DNS, "", "10.97.0.9", endpoints=())
    )
    assert some["filter", "NETPROXY-FORWARD"][-1] == "-d 10.97.0.9/32 -m conntrack --ctstate NEW -j NETPROXY-REFUSED"
    hairpin = "-d 10.244.1.2/32 -m conntrack --ctstate DNAT -j NETPROXY-HAIRPIN"
    assert some["nat", "NETPROXY-POSTROUTING"][-1] == hairpin


def test_a_frontend_of_the_other_family_is_left_out():
    assert (
        planned(frontend(address="fd00::1", endpoints=("fd00:1::2",)))
        == IptablesPlanner(Surroundings(Family.V4, pods=PODS)).objects
    )


@pytest.mark.parametrize(
    ("service", "port_name"),
    [
        (ServiceName("default", 'web" -j ACCEPT'), "http"),
        (ServiceName("default", "web\n-A INPUT -j ACCEPT"), "http"),
        (ServiceName("default", "web"), "http\n"),
        (ServiceName("de\\fault", "web"), ""),
        (ServiceName("default", "ẅeb"), "http"),
        (ServiceName("default", "w" * 300), "http"),
    ],
)
def test_a_name_that_kubernetes_would_not_allow_stays_out_of_the_ruleset(service, port_name):
    objects = planned(frontend(service, port_name), frontend(service, port_name, "10.96.0.2", endpoints=()))
    text = render(diff(objects, {}), OURS)
    assert "comment" not in text
    assert text.isascii()
    assert len(service_chains(objects)) == 1
    assert text.count("ACCEPT") == render(diff(planned(), {}), OURS).count("ACCEPT")


def test_the_scope_of_an_ipv6_address_stays_out_of_the_ruleset():
    scoped = endpoint("fe80::1%\n-A INPUT", is_local=True)
    text = render(
        diff(planned(frontend(address="fe80::2%x y", endpoints=(scoped,)), family=Family.V6, cidr=None), {}), OURS
    )
    assert "%" not in text
    assert "-d fe80::2/128 " in text


@given(st.one_of(st.ip_addresses(v=6), st.integers(0, 2**49).map(IPv6Address), st.ip_addresses(v=4)))
def test_addresses_are_written_as_iptables_prints_them(address):
    family = Family.of(address)
    kind = socket.AF_INET if family is Family.V4 else socket.AF_INET6
    assert host(family, int(address)) == socket.inet_ntop(kind, address.packed)


def test_a_changed_endpoint_changes_one_chain():
    planner = IptablesPlanner(Surroundings(Family.V4, pods=PODS))
    planner.replace(WEB, [frontend(endpoints=("10.244.1.2", "10.244.1.3"))], Delta())
    planner.replace(DNS, [frontend(DNS, "dns", "10.96.0.10")], Delta())
    delta = Delta()
    planner.replace(WEB, [frontend(endpoints=("10.244.1.2", "10.244.1.4"))], delta)
    assert delta.put.keys() == delta.drop.keys()
    assert [chain[:13] for _, chain in delta.put] == ["NETPROXY-SVC-"]


def test_a_frontend_that_loses_its_last_endpoint_is_rejected():
    planner = IptablesPlanner(Surroundings(Family.V4, pods=PODS))
    planner.replace(WEB, [frontend()], Delta())
    planner.replace(WEB, [frontend(endpoints=())], Delta())
    assert not service_chains(planner.objects)
    assert planner.objects["nat", "NETPROXY-SERVICES"] == planned()["nat", "NETPROXY-SERVICES"]
    assert reached(planner.objects, "filter", "NETPROXY-REFUSED", "10.96.0.1")[0]


def test_a_pod_behind_two_services_keeps_its_hairpin_until_both_let_go():
    planner = IptablesPlanner(Surroundings(Family.V4, pods=PODS))
    pod = endpoint("10.244.1.2", is_local=True)
    planner.replace(WEB, [frontend(endpoints=(pod,))], Delta())
    planner.replace(DNS, [frontend(DNS, "dns", "10.96.0.10", endpoints=(pod,))], Delta())
    planner.replace(WEB, [], Delta())
    assert len(planner.objects["nat", "NETPROXY-HAIRPIN"]) == 1
    planner.replace(DNS, [], Delta())
    assert planner.objects["nat", "NETPROXY-HAIRPIN"] == ()


def test_an_address_may_move_to_another_service_in_either_order():
    """In one batch the new owner may come before the old one goes."""
    planner = IptablesPlanner(Surroundings(Family.V4, pods=PODS))
    planner.replace(WEB, [frontend()], Delta())
    planner.replace(DNS, [frontend(DNS)], Delta())
    planner.replace(WEB, [], Delta())
    assert planner.objects == planned(frontend(DNS))


MARK = "-j MARK --set-xmark 0x4000/0x4000"
API = (endpoint("10.244.1.3", is_local=True), endpoint("10.244.2.4"))


@pytest.mark.parametrize(
    ("pods", "first"),
    [
        (PODS, f"! -s 10.244.0.0/16 {MARK}"),
        (Interfaces("cni0"), f"! -i cni0 {MARK}"),
        (Interfaces("veth", is_prefix=True), f"! -i veth+ {MARK}"),
    ],
)
def test_each_way_to_tell_pods_marks_who_is_none(pods, first):
    (rules,) = service_chains(planned(frontend(), cidr=pods))
    assert rules[0] == first


def test_masquerade_all_marks_every_caller_of_a_cluster_ip():
    assert service_chains(planned(frontend(), masquerade_all=True))[0][0] == MARK
    assert service_chains(planned(frontend(), cidr=None, masquerade_all=True, masquerade_bit=0))[0][0] == (
        "-j MARK --set-xmark 0x1/0x1"
    )


def test_external_addresses_of_one_port_share_a_chain_that_marks_and_then_do_as_the_cluster_ip_does():
    objects = planned(
        frontend(),
        node_port(),
        frontend(address="203.0.113.1", scope=Scope.LOAD_BALANCER),
        frontend(address="10.96.0.9"),
    )
    (cluster_ip,) = service_chains(objects)
    (external,) = chains(objects, "EXT")
    assert external[0] == MARK
    assert objects["nat", external[1].removeprefix("-j ")] == cluster_ip


def test_two_ports_of_a_service_never_share_a_chain():
    """A counter of round robin that both move would show each of them only some of its endpoints."""
    ports = [frontend(port=port, port_name=f"p{port}", balance=Balance.ROUND_ROBIN, endpoints=API) for port in (80, 81)]
    assert len(service_chains(planned(*ports))) == 2


def test_under_masquerade_all_callers_from_inside_keep_their_source_at_external_addresses():
    local = frontend(address="203.0.113.1", scope=Scope.LOAD_BALANCER, endpoints=API[:1], inside=API)
    objects = planned(frontend(endpoints=API), local, masquerade_all=True)
    (external,) = chains(objects, "EXT")
    for rule in (external[0], external[-1]):
        assert not [one for one in objects["nat", rule.rpartition(" ")[2]] if "MARK" in one]


def test_without_a_detector_only_this_node_is_inside():
    local = frontend(address="203.0.113.1", scope=Scope.LOAD_BALANCER, endpoints=(), inside=API, refusal=Refusal.DROP)
    objects = planned(local, cidr=None)
    (external,) = chains(objects, "EXT")
    assert external[0] == f"-m addrtype --src-type LOCAL {MARK}"
    assert external[1].startswith("-m addrtype --src-type LOCAL -j NETPROXY-LB-")
    assert len(external) == 2
    assert reached(objects, "filter", "NETPROXY-REFUSED", "203.0.113.1")[0][0].endswith("-j DROP")


def test_clients_out_of_range_are_dropped_where_no_rule_took_them():
    ranges = (ip_network("198.51.100.0/24"), ip_network("0.0.0.0/0"), ip_network("2001:db8::/32"))
    objects = planned(frontend(address="203.0.113.1", scope=Scope.LOAD_BALANCER, sources=ranges))
    (allowed,) = chains(objects, "ALLOW")
    assert [rule.rpartition(" -j ")[0] or rule[:3] for rule in allowed] == ["-s 198.51.100.0/24", "-j "]
    assert reached(objects, "filter", "NETPROXY-REFUSED", "203.0.113.1")[0][0].endswith("-j DROP")


def test_weights_are_shares_and_who_weighs_nothing_gets_nothing():
    places = [endpoint(f"10.244.1.{number}", weight=weight) for number, weight in enumerate((0, 1, 3), start=1)]
    (rules,) = service_chains(planned(frontend(balance=Balance.WEIGHTED, endpoints=places), cidr=None))
    assert rules == (
        "-p tcp -m statistic --mode random --probability 0.25000000000 -j DNAT --to-destination 10.244.1.2:8080",
        f"-p tcp {OF_WEB}-j DNAT --to-destination 10.244.1.3:8080",
    )


def test_when_all_weigh_nothing_they_are_alike():
    places = [endpoint(f"10.244.1.{number}", weight=0) for number in (1, 2)]
    weighted = planned(frontend(balance=Balance.WEIGHTED, endpoints=places))
    assert service_chains(weighted) == service_chains(planned(frontend(endpoints=places)))


def test_affinity_has_a_set_for_each_endpoint_of_a_port_whichever_address_the_client_calls():
    objects = planned(frontend(endpoints=API, affinity_s=60), node_port(endpoints=API, affinity_s=60))
    assert len([name for table, name in objects if table == SET_TABLE]) == 2


def test_the_set_of_a_gone_endpoint_goes():
    planner = IptablesPlanner(Surroundings(Family.V4, pods=PODS))
    planner.replace(WEB, [frontend(endpoints=API, affinity_s=60)], Delta())
    delta = Delta()
    planner.replace(WEB, [frontend(endpoints=API[:1], affinity_s=60)], delta)
    assert [table for table, _ in delta.drop.keys() - delta.put.keys()] == [SET_TABLE]


def test_without_sets_the_match_recent_remembers():
    (rules,) = service_chains(planned(frontend(endpoints=API, affinity_s=60), cidr=None, memory=Memory.RECENT))
    assert [" ".join(re.findall(r"--(?:update|set|seconds \d+|probability)", rule)) for rule in rules] == [
        "--update --seconds 60",
        "--update --seconds 60",
        "--probability --set",
        "--set",
    ]


addresses = st.integers(1, 40).map(lambda number: IPv4Address(0x0A600000 + 13 * number))
places = st.builds(
    Endpoint,
    st.integers(1, 30).map(lambda n: IPv4Address(0x0AF40000 + n)),
    st.just(80),
    st.booleans(),
    st.integers(0, 3),
)
several = st.lists(places, max_size=3, unique_by=lambda one: one.address).map(tuple)
networks = st.sampled_from([ip_network("198.51.100.0/24"), ip_network("0.0.0.0/0"), ip_network("fd00::/8")])


@st.composite
def any_frontends(draw):
    scope = draw(st.sampled_from(Scope))
    return Frontend(
        ServicePortName(WEB, draw(st.sampled_from(["http", "dns"]))),
        ANY_NODE_ADDRESS[Family.V4] if scope is Scope.NODE_PORT else draw(addresses),
        draw(st.sampled_from(Protocol)),
        draw(st.sampled_from([53, 80])),
        draw(st.sampled_from(Balance)),
        draw(several),
        scope,
        None if scope is Scope.CLUSTER_IP else draw(st.none() | several),
        refusal=draw(st.sampled_from(Refusal)),
        affinity_s=draw(st.sampled_from([0, 60])),
        sources=draw(st.lists(networks, max_size=2, unique=True).map(tuple)),
    )


batches = st.lists(st.lists(any_frontends(), max_size=8, unique_by=lambda one: one.key), min_size=1, max_size=6)
surroundings = st.builds(
    Surroundings,
    st.just(Family.V4),
    st.sampled_from([PODS, None, Interfaces("cni0"), ip_network("0.0.0.0/0")]),
    st.sampled_from([None, LISTED]),
    st.booleans(),
    masquerade_all=st.booleans(),
    masquerade_bit=st.sampled_from([0, 14, 31]),
    tcp_be_liberal=st.booleans(),
    health_check_ports=st.frozensets(st.integers(30000, 30020)),
)


def named(service, batch):
    """Each service has addresses and node ports of its own."""
    return [
        replace(
            one,
            name=ServicePortName(ServiceName("default", f"s{service}"), one.name.port),
            address=one.address if one.scope is Scope.NODE_PORT else IPv4Address(int(one.address) + service),
            port=one.port + 100 * service,
        )
        for one in batch
    ]


@given(batches, st.lists(surroundings, min_size=1, max_size=3), st.integers(1, 3))
def test_the_deltas_add_up_to_the_state_and_load(history, nodes, services):
    """Whatever changes in whatever order: every delta, as iptables-restore input, leads to exactly what is planned."""
    planner = IptablesPlanner(nodes[0])
    ruleset, state = Ruleset(), {}
    start = diff(planner.objects, state)
    start.apply_to(state)
    ruleset.restore(render(start, OURS))
    last = {}
    for step, batch in enumerate(history):
        service = step % services
        last[service] = named(service, batch)
        delta = Delta()
        planner.replace(ServiceName("default", f"s{service}"), last[service], delta)
        planner.settle(nodes[step % len(nodes)], delta)
        delta.apply_to(state)
        ruleset.restore(render(delta, OURS))
    anew = IptablesPlanner(nodes[(len(history) - 1) % len(nodes)])
    for service, batch in last.items():
        anew.replace(ServiceName("default", f"s{service}"), batch, Delta())
    assert state == planner.objects == anew.objects
    rules = {key: tuple(rules) for key, rules in ruleset.chains.items() if rules or key in state}
    assert rules == {key: value for key, value in state.items() if key[0] != SET_TABLE}
    assert all(len(chain) <= MAX_NAME for _, chain in state)
    needed = {name for rules in state.values() for rule in rules for name in re.findall(r"-set (NETPROXY-\S+)", rule)}
    assert needed <= {name for table, name in state if table == SET_TABLE}
