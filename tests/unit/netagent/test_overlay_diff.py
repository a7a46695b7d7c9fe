from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlloop.delta import diff
from netagent.diff import ORDER, Operation, Verb, plan
from netagent.state import FdbEntry, LinkAddress, Neighbor, Route, VxlanLink

small = st.integers(2, 5)
links = st.builds(
    lambda n, port, mtu: VxlanLink(f"flannel.{n}", n, port, "eth0", ip_address("192.0.2.1"), "02:00:00:00:00:01", mtu),
    small,
    st.sampled_from([8472, 4789]),
    st.sampled_from([1400, 1450]),
)
objects = st.one_of(
    links,
    st.builds(lambda n: LinkAddress(ip_address(f"10.5.{n}.0"), 32, "flannel.1"), small),
    st.builds(lambda n, d: FdbEntry(f"02:00:00:00:00:0{n}", ip_address(f"192.0.2.{d}"), "flannel.1"), small, small),
    st.builds(lambda n, m: Neighbor(ip_address(f"10.5.{n}.0"), f"02:00:00:00:00:0{m}", "flannel.1"), small, small),
    st.builds(
        lambda n, g: Route(ip_network(f"10.5.{n}.0/24"), ip_address(f"10.5.{g}.0"), "flannel.1", True, 0),
        small,
        small,
    ),
)
states = st.lists(objects).map(lambda found: {each.key: each for each in found})


@given(states, states)
def test_a_plan_carried_out_gives_the_desired_state(desired, actual):
    state = dict(actual)
    for operation in plan(diff(desired, actual)):
        if operation.verb is Verb.REMOVE:
            assert state.pop(operation.object.key) == operation.object
        else:
            assert (operation.object.key in state) == (operation.verb is not Verb.ADD)
            state[operation.object.key] = operation.object
    assert state == desired


@given(states, states)
def test_what_others_stand_on_is_put_first_and_removed_last(desired, actual):
    operations = plan(diff(desired, actual))
    put = [ORDER[type(each.object)] for each in operations if each.verb is not Verb.REMOVE]
    removed = [ORDER[type(each.object)] for each in operations if each.verb is Verb.REMOVE]
    assert put == sorted(put)
    assert removed == sorted(removed, reverse=True)
    assert [each.verb is Verb.REMOVE for each in operations] == [False] * len(put) + [True] * len(removed)


def v6_route(device, gateway, *, prefix="fc00:5:2::/64", onlink=False):
    return Route(ip_network(prefix), gateway and ip_address(gateway), device, onlink, 1024)


HINDRANCES = [
    (v6_route("eth0", "2001:db8::2"), v6_route("flannel-v6.1", "fc00:5:2::", onlink=True)),
    (v6_route("flannel-wg-v6", None, prefix="fc00:5::/48"), v6_route("flannel-v6.1", "fc00:5:2::", onlink=True)),
]


@pytest.mark.parametrize(("old", "new"), HINDRANCES, ids=str)
def test_a_route_for_whose_sake_the_kernel_would_refuse_another_goes_first(old, new):
    operations = plan(diff({new.key: new}, {old.key: old}))
    assert operations == [Operation(Verb.REMOVE, old), Operation(Verb.ADD, new)]


def link(**changes):
    kept = {"vni": 1, "port": 8472, "parent": "eth0", "local": ip_address("192.0.2.1"), "mac": "02:00:00:00:00:01"}
    return (
        VxlanLink("flannel.1", mtu=1450, **kept)
        if not changes
        else VxlanLink(**{"name": "flannel.1", "mtu": 1450, **kept, **changes})
    )


def verb_after(**changes):
    (operation,) = plan(diff({link().key: link(**changes)}, {link().key: link()}))
    return operation.verb


def test_only_what_the_driver_fixes_at_creation_makes_a_device_anew():
    fixed = [{"vni": 2}, {"port": 4789}, {"parent": "eth1"}, {"local": ip_address("192.0.2.2")}, {"gbp": True}]
    settable = [{"mac": "02:00:00:00:00:02"}, {"mtu": 1400}, {"learning": True}, {"alias": ""}, {"up": False}]
    assert {verb_after(**changes) for changes in fixed} == {Verb.RECREATE}
    assert {verb_after(**changes) for changes in settable} == {Verb.CHANGE}


def test_an_operation_reads_like_the_command_for_it():
    route = Route(ip_network("10.5.2.0/24"), ip_address("10.5.2.0"), "flannel.1", onlink=True, metric=0)
    assert str(Operation(Verb.ADD, route)) == "add route 10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink proto 78"
    entry = FdbEntry("02:00:00:00:00:02", ip_address("192.0.2.2"), "flannel.1")
    assert str(Operation(Verb.REMOVE, entry)) == (
        "delete fdb 02:00:00:00:00:02 dev flannel.1 dst 192.0.2.2 self permanent"
    )
