"""What notifications mean, made of the messages that we would send ourselves."""

from ipaddress import ip_address, ip_network

import pytest

from netagent.diff import Operation, Verb
from netagent.drift import RTM_DELLINK, Drift, Judge
from netagent.messages import (
    IFINFOMSG,
    IFLA_IFNAME,
    RTM_DELADDR,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    Message,
    attribute,
    encode,
    index_attribute,
    messages,
)
from netagent.state import FdbEntry, LinkAddress, Neighbor, Route, VxlanLink

DEVICE, ETH0 = 7, 2
NAMES = {ETH0: "eth0", DEVICE: "flannel.1", 9: "veth1"}
LINK = VxlanLink("flannel.1", 1, 8472, "eth0", ip_address("192.0.2.1"), "02:00:00:00:00:01", 1450)
ADDRESS = LinkAddress(ip_address("10.5.1.0"), 32, "flannel.1")
FDB = FdbEntry("02:00:00:00:00:02", ip_address("192.0.2.2"), "flannel.1")
NEIGHBOR = Neighbor(ip_address("10.5.2.0"), "02:00:00:00:00:02", "flannel.1")
ROUTE = Route(ip_network("10.5.2.0/24"), ip_address("10.5.2.0"), "flannel.1", onlink=True, metric=0)
DESIRED = {each.key: each for each in (LINK, ADDRESS, FDB, NEIGHBOR, ROUTE)}

SAYS = {
    LinkAddress: (RTM_NEWADDR, RTM_DELADDR),
    FdbEntry: (RTM_NEWNEIGH, RTM_DELNEIGH),
    Neighbor: (RTM_NEWNEIGH, RTM_DELNEIGH),
    Route: (RTM_NEWROUTE, RTM_DELROUTE),
}


@pytest.fixture
def judge():
    return Judge(lambda: DESIRED, lambda: {"eth0"}, lambda payload: LINKS.get(payload[-8:]), NAMES)


def said(thing, gone=False, index=DEVICE):  # noqa: FBT002
    """What the kernel says when the object comes or goes."""
    [sent] = messages(encode(Operation(Verb.ADD, thing), index, 1, acknowledge=False))
    payload = sent.payload
    if isinstance(thing, Route):
        payload += index_attribute(15, 254)
    return Message(SAYS[type(thing)][gone], 0, 0, payload)


@pytest.mark.parametrize("thing", [FDB, NEIGHBOR, ROUTE], ids=str)
def test_an_object_that_went_is_missed(judge, thing):
    assert judge.judge(said(thing, gone=True)) == Drift(thing.key)


def test_with_an_address_more_may_have_gone_than_was_said(judge):
    assert judge.judge(said(ADDRESS, gone=True)) == Drift(ADDRESS.key, everything=True)


@pytest.mark.parametrize("thing", [ADDRESS, FDB, NEIGHBOR, ROUTE], ids=str)
def test_what_is_as_it_should_be_is_no_drift(judge, thing):
    assert judge.judge(said(thing)).settled


CHANGED = [
    FdbEntry(FDB.mac, ip_address("192.0.2.77"), "flannel.1"),
    Neighbor(NEIGHBOR.address, "02:bb:bb:bb:bb:bb", "flannel.1"),
    Route(ROUTE.prefix, ip_address("10.5.3.0"), "flannel.1", onlink=True, metric=0),
]
EXTRA = [
    LinkAddress(ip_address("10.77.0.1"), 24, "flannel.1"),
    FdbEntry("02:cc:cc:cc:cc:cc", ip_address("192.0.2.9"), "flannel.1"),
    Neighbor(ip_address("10.77.0.1"), "02:cc:cc:cc:cc:cc", "flannel.1"),
    Route(ip_network("10.77.0.0/24"), ip_address("10.5.2.0"), "flannel.1", onlink=True, metric=0),
]


@pytest.mark.parametrize("thing", [*CHANGED, *EXTRA], ids=str)
def test_what_should_not_be_there_is_seen_with_what_it_is(judge, thing):
    assert judge.judge(said(thing)) == Drift(thing.key, thing)


def test_of_several_destinations_behind_a_mac_only_the_desired_one_is_missed(judge):
    assert judge.judge(said(CHANGED[0], gone=True)) is None


FOREIGN = [
    said(Neighbor(ip_address("192.0.2.9"), "02:cc:cc:cc:cc:cc", "eth0"), index=ETH0),
    said(Neighbor(ip_address("10.5.1.9"), "02:cc:cc:cc:cc:cc", "veth1"), index=9),
    said(FdbEntry("02:cc:cc:cc:cc:cc", ip_address("192.0.2.9"), "vxlan9"), index=12),
    said(LinkAddress(ip_address("10.5.1.1"), 24, "veth1"), index=9),
    said(Route(ip_network("10.9.0.0/24"), ip_address("192.0.2.9"), "eth0", onlink=False, metric=0, protocol=4)),
    said(Route(ip_network("10.9.0.0/24"), None, "eth0", onlink=False, metric=0, protocol=4), gone=True),
    Message(99, 0, 0, b""),
]


@pytest.mark.parametrize("message", FOREIGN, ids=lambda message: str(message.kind))
def test_what_others_do_with_theirs_is_nothing_to_us(judge, message):
    assert judge.judge(message) is None


def test_a_foreign_route_in_the_place_of_ours_is_looked_into(judge):
    foreign = Route(ROUTE.prefix, ip_address("192.0.2.9"), "eth0", onlink=False, metric=0, protocol=4)
    assert judge.judge(said(foreign, index=ETH0)) == Drift(ROUTE.key, everything=True)
    assert judge.judge(said(foreign, gone=True, index=ETH0)) == Drift(ROUTE.key)


LINKS = {}


def link_said(kind, index, name, *, flags=1, mtu=1500, link=None):
    payload = IFINFOMSG.pack(0, 1, index, flags, 0) + attribute(IFLA_IFNAME, name.encode() + b"\0")
    payload += index_attribute(4, mtu)
    if link is not None:
        LINKS[payload[-8:]] = link
    return Message(kind, 0, 0, payload)


def test_a_device_of_ours_that_went_took_everything_along(judge):
    assert judge.judge(link_said(RTM_DELLINK, DEVICE, "flannel.1")) == Drift(LINK.key, everything=True)


def test_a_device_that_differs_is_mended_by_itself_and_one_that_is_down_needs_a_look_at_all(judge):
    for link, everything in ((VxlanLink(**{**fields(LINK), "mtu": 1300}), False), (down(LINK), True)):
        drift = judge.judge(link_said(RTM_NEWLINK, DEVICE, "flannel.1", mtu=77, link=link))
        assert drift == Drift(LINK.key, link, everything=everything)
    assert judge.judge(link_said(RTM_NEWLINK, DEVICE, "flannel.1", mtu=78, link=LINK)).settled


def fields(link):
    return {name: getattr(link, name) for name in link.__dataclass_fields__}


def down(link):
    return VxlanLink(**{**fields(link), "up": False})


def test_an_underlay_is_surveyed_when_it_changes_and_not_for_each_word_about_it(judge):
    up = link_said(RTM_NEWLINK, ETH0, "eth0")
    assert judge.judge(up) == Drift(everything=True, underlay=True)
    assert judge.judge(up) is None
    assert judge.judge(link_said(RTM_NEWLINK, ETH0, "eth0", flags=0)).underlay
    assert judge.judge(link_said(RTM_DELLINK, ETH0, "eth0")).underlay
    assert judge.judge(link_said(RTM_NEWLINK, 42, "eth0")).underlay
    assert judge.judge(said(LinkAddress(ip_address("192.0.2.5"), 24, "eth0"), index=42)) == Drift(underlay=True)


def test_a_device_that_was_renamed_is_missed_under_its_name(judge):
    assert judge.judge(link_said(RTM_NEWLINK, DEVICE, "other")) == Drift(LINK.key, everything=True)
