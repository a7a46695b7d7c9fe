"""Messages against pyroute2, which was written by others from the same headers."""

import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from controlloop.family import Family
from netagent.diff import Operation, Verb
from netagent.messages import (
    HEADER,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLMSG_ERROR,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_NEWROUTE,
    Message,
    attribute,
    decode_address,
    decode_neighbor,
    decode_route,
    encode,
    error_of,
    messages,
)
from netagent.state import METRIC, FdbEntry, LinkAddress, Neighbor, Route

DEVICE, INDEX = "flannel.1", 7
NAMES = {INDEX: DEVICE}

v4 = st.integers(0, 2**32 - 1).map(IPv4Address)
v6 = st.integers(0, 2**128 - 1).map(IPv6Address)
addresses = v4 | v6
macs = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
networks = st.builds(lambda a, n: IPv4Network((a, n), strict=False), v4, st.integers(0, 32)) | st.builds(
    lambda a, n: IPv6Network((a, n), strict=False), v6, st.integers(0, 128)
)


def overlay_route(network):
    return Route(network, network.network_address, DEVICE, onlink=True, metric=METRIC[Family.of(network)])


def a_link_address(address):
    return LinkAddress(address, Family.of(address).bits, DEVICE)


routes = networks.map(overlay_route)
neighbors = st.builds(Neighbor, addresses, macs, st.just(DEVICE))
fdb_entries = st.builds(FdbEntry, macs, addresses, st.just(DEVICE))


def only(buffer):
    (message,) = messages(buffer)
    return message


def by_pyroute2(kind, buffer):
    message = kind(buffer)
    message.decode()
    return message


def put(thing, verb=Verb.ADD):
    return encode(Operation(verb, thing), INDEX, 5, acknowledge=False)


@given(routes)
def test_pyroute2_reads_our_route(route):
    read = by_pyroute2(rtmsg, put(route))
    assert (read["family"], read["dst_len"], read["proto"]) == (
        Family.of(route.prefix).af,
        route.prefix.prefixlen,
        route.protocol,
    )
    assert (read["table"], read["type"], read["scope"], read["flags"]) == (254, 1, 0, 4)
    assert ip_address(read.get("dst")) == ip_address(read.get("gateway")) == route.prefix.network_address
    assert read.get("oif") == INDEX
    assert (read.get("priority") or 0) == route.metric


@given(neighbors)
def test_pyroute2_reads_our_neighbor(neighbor):
    read = by_pyroute2(ndmsg, put(neighbor))
    assert (read["family"], read["ifindex"], read["state"]) == (Family.of(neighbor.address).af, INDEX, 0x80)
    assert (ip_address(read.get("dst")), read.get("lladdr")) == (neighbor.address, neighbor.mac)


@given(fdb_entries)
def test_pyroute2_reads_our_fdb_entry(entry):
    read = by_pyroute2(ndmsg, put(entry))
    assert (read["family"], read["ifindex"], read["state"], read["flags"]) == (7, INDEX, 0x80, 2)
    assert read.get("lladdr") == entry.mac
    # pyroute2 prints the address of an AF_BRIDGE message in its own way; the bytes are what counts.
    assert attribute(1, entry.destination.packed) in put(entry)


@given(addresses)
def test_pyroute2_reads_our_address(address):
    read = by_pyroute2(ifaddrmsg, put(a_link_address(address)))
    assert (read["family"], read["prefixlen"], read["index"]) == (Family.of(address).af, Family.of(address).bits, INDEX)
    assert ip_address(read.get("local")) == ip_address(read.get("address")) == address


@given(routes | neighbors | fdb_entries | addresses.map(a_link_address))
def test_what_is_encoded_is_what_is_decoded(thing):
    payload = only(put(thing)).payload
    if isinstance(thing, Route):
        # The kernel tells the table in an attribute; in a request it stands in the header alone.
        assert decode_route(payload + attribute(15, struct.pack("=I", 254)), NAMES) == thing
    elif isinstance(thing, LinkAddress):
        assert decode_address(payload, NAMES) == thing
    else:
        assert decode_neighbor(payload, NAMES) == thing


@given(networks, st.integers(1, 2**31 - 1), st.integers(0, 255))
def test_we_read_pyroute2s_route(network, metric, protocol):
    message = rtmsg()
    message.update({"family": Family.of(network).af, "dst_len": network.prefixlen, "proto": protocol, "type": 1})
    message["attrs"] = [
        ("RTA_TABLE", 254),
        ("RTA_DST", str(network.network_address)),
        ("RTA_OIF", INDEX),
        ("RTA_PRIORITY", metric),
    ]
    message.encode()
    read = decode_route(only(bytes(message.data)).payload, NAMES)
    assert read == Route(network, None, DEVICE, onlink=False, metric=metric, protocol=protocol)


@given(addresses, macs, st.sampled_from([0x02, 0x04, 0x40, 0x80]))
def test_we_read_pyroute2s_neighbor_only_when_it_is_permanent(address, mac, state):
    message = ndmsg()
    message.update({"family": Family.of(address).af, "ifindex": INDEX, "state": state})
    message["attrs"] = [("NDA_DST", str(address)), ("NDA_LLADDR", mac)]
    message.encode()
    read = decode_neighbor(only(bytes(message.data)).payload, NAMES)
    assert read == (Neighbor(address, mac, DEVICE) if state == 0x80 else None)


@pytest.mark.flannel("28")
@given(st.binary(max_size=400))
def test_garbage_ends_the_reading_and_breaks_nothing(garbage):
    for message in messages(garbage):
        assert len(message.payload) <= len(garbage)


A_ROUTE = overlay_route(IPv4Network("10.5.2.0/24"))
A_NEIGHBOR = Neighbor(IPv4Address("10.5.2.0"), "02:00:00:00:00:02", DEVICE)


@pytest.mark.parametrize(
    ("operation", "kind", "flags"),
    [
        (Operation(Verb.ADD, A_ROUTE), RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL),
        (Operation(Verb.CHANGE, A_ROUTE), RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE),
        (Operation(Verb.REMOVE, A_ROUTE), RTM_DELROUTE, 0),
        (Operation(Verb.REMOVE, A_NEIGHBOR), RTM_DELNEIGH, 0),
    ],
    ids=str,
)
def test_a_new_route_displaces_none_and_a_changed_one_only_itself(operation, kind, flags):
    message = only(encode(operation, INDEX, 9, acknowledge=True))
    assert (message.kind, message.flags & ~1, message.sequence) == (kind, flags | NLM_F_ACK, 9)


def test_the_kernels_own_words_are_read_from_an_error():
    text = attribute(1, b"Nexthop has invalid gateway\0")
    payload = struct.pack("=i", -101) + bytes(HEADER.size) + text
    assert error_of(Message(NLMSG_ERROR, NLM_F_ACK_TLVS, 1, payload)) == (101, "Nexthop has invalid gateway")
    assert error_of(Message(NLMSG_ERROR, 0, 1, payload)) == (101, "")
