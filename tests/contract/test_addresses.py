"""This node's addresses as the kernel tells them, in a network namespace of the test."""

import asyncio
import os
import subprocess
from ipaddress import ip_address

import pytest
from deadline import PATIENCE_S

from controlloop.etcd_settings import EtcdSettings
from controlloop.family import Family
from proxy.addresses.kernel import AddressEvents, local_addresses, outgoing_addresses
from proxy.addresses.messages import LISTING, read_part
from proxy.config import NodePortAddresses, Settings
from proxy.node_watch import NodeWatch

if os.geteuid() != 0:
    pytest.skip("needs root for network namespaces", allow_module_level=True)


def sh(*lines):
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True, capture_output=True)


@pytest.fixture
def eth0(netns):
    sh("link add eth0 type veth peer name eth1", "link set eth0 up", "link set eth1 up")


def found():
    return {str(address) for address in local_addresses() if not address.is_link_local}


def test_all_interfaces_and_both_families_are_read(eth0):
    sh(
        "address add 192.0.2.7/24 dev eth0",
        "address add 10.0.0.1 peer 10.0.0.2/32 dev eth0",
        "address add fd00::7/64 dev eth0 nodad",
    )
    assert found() == {"127.0.0.1", "::1", "192.0.2.7", "10.0.0.1", "fd00::7"}


def test_thousands_of_addresses_are_read_whole(eth0):
    wanted = {f"10.{number >> 8}.{number & 255}.1" for number in range(3000)}
    sh(*(f"address add {address}/32 dev eth0" for address in wanted))
    assert found() >= wanted


def test_the_outgoing_address_is_that_of_the_default_route(eth0):
    assert outgoing_addresses() == ()
    sh(
        "address add 203.0.113.7/24 dev eth0",
        "address add 203.0.113.8/24 dev eth0",
        "address add fd00::7/64 dev eth0 nodad",
        "route add default via 203.0.113.1 src 203.0.113.8",
        "route add default via fd00::1",
    )
    assert outgoing_addresses() == (ip_address("203.0.113.8"), ip_address("fd00::7"))


async def test_what_comes_and_goes_is_heard_at_once(eth0):
    events = AddressEvents()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await events.wait(0.01)
            for verb in ("add", "delete"):
                sh(f"address {verb} 192.0.2.7/24 dev eth0")
                await events.wait(PATIENCE_S)
    finally:
        events.close()


@pytest.mark.kube_proxy("gap 3.9-4", "extra-10", "gap 5.7-9")
async def test_an_address_that_is_added_serves_node_ports_at_once(eth0):
    from ipaddress import ip_network  # noqa: PLC0415

    settings = Settings(
        "me",
        EtcdSettings(("http://e",), "/nodenet"),
        node_port_addresses=NodePortAddresses(networks=(ip_network("192.0.2.0/24"),)),
    )
    moved = asyncio.Event()
    watch = NodeWatch(settings, None, moved.set)
    task = asyncio.create_task(watch.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await watch.known()
            assert watch.surroundings(Family.V4).node_port_addresses == frozenset()
            sh("address add 192.0.2.7/24 dev eth0")
            while watch.surroundings(Family.V4).node_port_addresses != {ip_address("192.0.2.7")}:
                moved.clear()
                await moved.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_refusal_of_the_kernel_is_an_error_and_half_a_message_is_none():
    error = (20).to_bytes(4, "little") + (2).to_bytes(2, "little") + bytes(10) + (-1 & 0xFFFFFFFF).to_bytes(4, "little")
    with pytest.raises(OSError, match="address listing"):
        read_part(error)
    assert read_part(LISTING[:10]).addresses == frozenset()
