"""Sends what `netctl check net` judges: a few pings to the other nodes, and one connection to each of some Services.

Bounded in number and time: at most PEERS nodes and SERVICES of them, all at once, each within TIMEOUT_S.
"""

import asyncio
import errno
import ipaddress
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from controlloop.client import UnreachableError
from controlloop.command import CommandError, run
from netctl.findings.facts import Reader, read_frontends, read_iptables, route_mtu
from netctl.findings.host_facts import Frontend
from netctl.findings.judge_net import NetFacts, Ping
from netctl.node import PROXY, Node

T = TypeVar("T")
U = TypeVar("U")

PEERS, SERVICES = 64, 64
TIMEOUT_S = 1.0
SMALL_BYTES = 56
PINGS, PING_EVERY_S = 20, 0.02
RECEIVED = re.compile(rb"(\d+) received")
HEADERS = {4: 28, 6: 48}
"""Bytes of IP and ICMP before what ping counts."""


def read_net(node: Node) -> tuple[NetFacts, list[str]]:
    """The facts, and what could not be read."""
    reader = Reader(node)
    peers = [peer for agent in node.daemons if agent != PROXY for peer in read_peers(reader, node, agent)]
    frontends = [each for each in read_frontends(node, read_iptables(reader)) if is_callable(each)]
    return asyncio.run(ask(node, peers, spread(frontends, SERVICES))), reader.unread


def read_peers(reader: Reader, node: Node, agent: str) -> list[Mapping[str, Any]]:
    try:
        return list(node.page(agent, "/peers")["items"])
    except UnreachableError as error:
        reader.unread.append(f"peers: {agent} does not answer ({error})")
        return []


def is_callable(frontend: Frontend) -> bool:
    """Of ClusterIPs we know that they are served to this node, and of TCP that somebody answers."""
    return frontend.is_cluster_ip and frontend.protocol == "tcp"


def spread(frontends: Sequence[Frontend], limit: int) -> list[Frontend]:
    """Not the first ones: neighbors in a list often share their fate."""
    step = max(1, -(-len(frontends) // limit))
    return list(frontends[::step])


async def ask(node: Node, peers: Sequence[Mapping[str, Any]], frontends: Sequence[Frontend]) -> NetFacts:
    asked = [peer for peer in peers if peer["public_ips"] and not peer["skipped"]][:PEERS]
    pings, overlay, calls = await asyncio.gather(
        together(asked, lambda peer: ping(node, peer["public_ips"][0])),
        together(asked, overlay_answers),
        together(frontends, call),
    )
    return NetFacts(
        peers,
        {peer["public_ips"][0]: answer for peer, answer in zip(asked, pings, strict=True) if answer},
        {peer["key"]: answer for peer, answer in zip(asked, overlay, strict=True) if answer is not None},
        dict(zip(frontends, calls, strict=True)),
    )


async def together(items: Sequence[T], question: Callable[[T], Awaitable[U]]) -> list[U]:
    return await asyncio.gather(*map(question, items))


async def overlay_answers(peer: Mapping[str, Any]) -> bool | None:
    """None where there is nobody to ask: with VXLAN the first address of a subnet is the device's there."""
    if not peer["mac"] or not peer["subnets"]:
        return None
    address = ipaddress.ip_network(peer["subnets"][0]).network_address
    try:
        return await answered_share(str(address), SMALL_BYTES) > 0
    except CommandError:
        return None


async def ping(node: Node, address: str) -> Ping | None:
    """None where it cannot be asked."""
    mtu = route_mtu(node, address)
    if not mtu:
        return None
    full_bytes = mtu - HEADERS[ipaddress.ip_address(address).version]
    try:
        small, full = await asyncio.gather(answered_share(address, SMALL_BYTES), answered_share(address, full_bytes))
    except CommandError:
        return None
    return Ping(small > 0, mtu, full > 0, small)


async def answered_share(address: str, size: int) -> float:
    """0 to 1 of PINGS. CommandError where there is no ping, or it may not."""
    count = ["-c", str(PINGS), "-i", str(PING_EVERY_S)]
    try:
        said = await run(["ping", "-q", "-n", *count, "-W", "1", "-M", "do", "-s", str(size), address])
    except CommandError as error:
        if error.returncode == 1:
            return 0.0
        raise
    found = RECEIVED.search(said)
    return int(found[1]) / PINGS if found else 1.0


async def call(frontend: Frontend) -> str:
    """Empty when a connection came about; it is closed at once."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(frontend.address, frontend.port)
    except TimeoutError:
        return f"no answer within {TIMEOUT_S:g} s"
    except OSError as error:
        return "refused" if error.errno == errno.ECONNREFUSED else os.strerror(error.errno or 0)
    writer.close()
    return ""
