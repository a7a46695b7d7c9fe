import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iptables_ruleset import Ruleset, reached

from controlloop.address import host
from controlloop.delta import Delta, diff
from controlloop.family import Family
from controlloop.iptables.transaction import render
from proxy.frontends import Balance, Endpoint, Frontend, Protocol, ServiceName, ServicePortName
from proxy.iptables.chains import MAX_NAME, OURS
from proxy.iptables.balancing import probability
from proxy.iptables.desired import IptablesPlanner
from proxy.node import Surroundings

GOLDEN = Path(__file__).parents[3] / "golden"
PODS = ip_network("10.244.0.0/16")
WEB = ServiceName("default", "web")
DNS = ServiceName("kube-system", "dns")


def endpoint(address, port=8080, *, is_local=False):
    return Endpoint(ip_address(address), port, is_local)


def frontend(
    service=WEB,
    port_name="http",
    address="10.96.0.1",
    *,
    protocol=Protocol.TCP,
    port=80,
    balance=Balance.RANDOM,
    endpoints=("10.244.1.2",),
):
    places = tuple(one if isinstance(one, Endpoint) else endpoint(one) for one in endpoints)
    return Frontend(ServicePortName(service, port_name), ip_address(address), protocol, port, balance, places)


def planned(*frontends, family=Family.V4, cidr=PODS):
    planner = IptablesPlanner(Surroundings(family, pods=cidr))
    for service in dict.fromkeys(one.name.service for one in frontends):
        planner.replace(service, [one for one in frontends if one.name.service == service], Delta())
    return planner.objects


def service_chains(objects):
    return [rules for (_, chain), rules in objects.items() if chain.startswith("NETPROXY-SVC-")]


def two_services():
    """default/web:http has a local and two distant endpoints; kube-system/dns serves DNS, but no metrics."""
    web = (endpoint("10.244.1.2", is_local=True), endpoint("10.244.2.2"), endpoint("10.244.2.3"))
    dns = (endpoint("10.244.1.9", 53, is_local=True), endpoint("10.244.2.9", 53))
    return planned(
        frontend(balance=Balance.ROUND_ROBIN, endpoints=web),
        frontend(DNS, "dns", "10.96.0.10", protocol=Protocol.UDP, port=53, endpoints=dns),
        frontend(DNS, "metrics", "10.96.0.10", port=9153, endpoints=()),
    )


def test_two_services_as_a_whole_ruleset():
    """Comments in the file are for people; everything else is what iptables-restore is given."""
    golden = (GOLDEN / "two_services.iptables").read_text()
    lines = [line for line in golden.splitlines() if line and not line.startswith("#")]
    assert render(diff(two_services(), {}), OURS).splitlines() == lines


def test_without_services_there_are_the_constant_rules_and_three_empty_trees():
    empty = {("nat", "NETPROXY-SERVICES"): (), ("nat", "NETPROXY-HAIRPIN"): (), ("filter", "NETPROXY-REFUSED"): ()}
    assert IptablesPlanner(Surroundings(Family.V4)).objects == {**CONSTANT, **empty}


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
        "-p tcp -j DNAT --to-destination 10.244.1.3:8080",
    )


@pytest.mark.parametrize("cidr", [None, ip_network("0.0.0.0/0")])
def test_without_a_network_outside_of_the_pods_nothing_is_marked(cidr):
    assert service_chains(planned(frontend(), cidr=cidr)) == [("-p tcp -j DNAT --to-destination 10.244.1.2:8080",)]


def test_ipv6_takes_the_same_path():
    web = frontend(address="fd00::1", endpoints=(endpoint("fd00:1::2", is_local=True),))
    idle = frontend(address="fd00::2", endpoints=())
    objects = planned(web, idle, family=Family.V6, cidr=ip_network("fd00:1::/64"))
    assert service_chains(objects) == [
        ("! -s fd00:1::/64 -j MARK --set-xmark 0x4000/0x4000", "-p tcp -j DNAT --to-destination [fd00:1::2]:8080")
    ]
    assert objects["nat", "NETPROXY-HAIRPIN"] == ("-s fd00:1::2/128 -d fd00:1::2/128 -j MASQUERADE --random-fully",)
    (reject,) = objects["filter", "NETPROXY-REFUSED"]
    assert reject.startswith("-d fd00::2/128 -p tcp -m tcp --dport 80 ")
    assert reject.endswith(" -j REJECT --reject-with icmp6-port-unreachable")


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
    assert text.count("ACCEPT") == 0


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
    assert planner.objects["nat", "NETPROXY-SERVICES"] == ()
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


addresses = st.integers(1, 40).map(lambda number: IPv4Address(0x0A600000 + 13 * number))
places = st.builds(Endpoint, st.integers(1, 30).map(lambda n: IPv4Address(0x0AF40000 + n)), st.just(80), st.booleans())
frontends = st.builds(
    Frontend,
    st.just(ServicePortName(WEB, "http")),
    addresses,
    st.sampled_from(Protocol),
    st.sampled_from([53, 80]),
    st.sampled_from(Balance),
    st.lists(places, max_size=3, unique=True).map(tuple),
)
batches = st.lists(st.lists(frontends, max_size=8, unique_by=lambda one: one.key), min_size=1, max_size=6)


def named(service, batch):
    """Each service has addresses of its own."""
    return [
        Frontend(
            ServicePortName(ServiceName("default", f"s{service}"), "p"),
            IPv4Address(int(one.address) + service),
            one.protocol,
            one.port,
            one.balance,
            one.endpoints,
        )
        for one in batch
    ]


@given(batches, st.integers(1, 3))
def test_the_deltas_add_up_to_the_state_and_load(history, services):
    """Whatever changes in whatever order: every delta, as iptables-restore input, leads to exactly what is planned."""
    planner = IptablesPlanner(Surroundings(Family.V4, pods=PODS))
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
        delta.apply_to(state)
        ruleset.restore(render(delta, OURS))
    assert state == planner.objects == planned(*[one for batch in last.values() for one in batch])
    assert {key: tuple(rules) for key, rules in ruleset.chains.items() if rules or key in state} == state
    assert all(len(chain) <= MAX_NAME for _, chain in state)
