"""Follows what is known of this node: what the API says of it, its addresses, its settings."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Never, Protocol

from controlloop.family import Family, IPAddress, IPNetwork
from controlloop.logs import Log
from proxy.addresses.kernel import AddressEvents, local_addresses, outgoing_addresses
from proxy.config import DetectLocal, ProxyMode, Settings
from proxy.node import Node, Surroundings
from proxy.node_facts import ApiNode, Facts, is_enough, node_of, surroundings_of

WAIT_S, WAIT_FOR_CIDR_S = 30.0, 300.0
"""How long a start waits for the own Node, and for its podCIDRs where they tell who is a pod (kube-proxy)."""
GATHER_S = 0.1
"""Addresses that come together are read once."""
RESCAN_S = 30.0
"""The default route may move without a word to us."""

log = Log("node")


class NodeApi(Protocol):
    """`proxy.node_api`: a proxy on etcd or files does without the memory that it takes."""

    def nodes(self) -> AsyncGenerator[ApiNode | None, None]: ...

    def service_cidrs(self) -> AsyncGenerator[tuple[IPNetwork, ...], None]: ...


class NodeWatch:
    def __init__(self, settings: Settings, api: NodeApi | None, changed: Callable[[], None]) -> None:
        """`api` is None with a source that knows no Nodes. `changed` is called when anything below may be different
        from before.
        """
        self._settings = settings
        self._api = api
        self._changed = changed
        self._facts = Facts()
        self._known = asyncio.Event()

    @property
    def node(self) -> Node:
        return node_of(self._settings, self._facts)

    @property
    def api_node(self) -> ApiNode | None:
        """As it was last seen; None: the source knows no Nodes, or never had this one."""
        return self._facts.api_node

    @property
    def is_eligible(self) -> bool:
        """Whether a load balancer may send here: not to a node that is unknown to the API, or about to go."""
        node = self._facts.api_node
        return self._api is None or (self._facts.exists and node is not None and node.is_eligible)

    def surroundings(self, family: Family) -> Surroundings:
        return surroundings_of(self._settings, self._facts, family)

    def local_addresses(self, family: Family) -> frozenset[IPAddress]:
        """The addresses of all interfaces."""
        return frozenset(address for address in self._facts.local if Family.of(address) is family)

    def apply(self, settings: Settings) -> None:
        """These are the settings from now on (`config.apply_live`)."""
        self._settings = settings
        self._changed()

    async def known(self) -> None:
        """Return when enough is known to write rules, or when it is time to do without."""
        wait_s = WAIT_FOR_CIDR_S if self._settings.detection.mode is DetectLocal.NODE_CIDR else WAIT_S
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._known.wait()
            return
        log.warning("going on without all that the API should say of this node", node=self._settings.node_name)

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_addresses())
            if self._api is not None:
                tasks.create_task(self._follow_node(self._api))
                # kube-proxy reads ServiceCIDRs in nftables mode alone.
                if self._settings.mode is ProxyMode.NFTABLES:
                    tasks.create_task(self._follow_service_cidrs(self._api))

    async def _follow_addresses(self) -> Never:
        events = AddressEvents()
        try:
            while True:
                try:
                    found = local_addresses()
                except OSError as error:
                    log.warning("addresses cannot be read", error=error)
                else:
                    self._learn(replace(self._facts, local=found, outgoing=outgoing_addresses()))
                await events.wait(RESCAN_S)
                await asyncio.sleep(GATHER_S)
        finally:
            events.close()

    async def _follow_node(self, api: NodeApi) -> None:
        async with aclosing(api.nodes()) as nodes:
            async for node in nodes:
                if node is None:
                    # What was known of it still holds for connections; a load balancer is told.
                    log.warning("the API knows no such node", node=self._settings.node_name)
                    self._learn(replace(self._facts, exists=False))
                else:
                    self._learn(replace(self._facts, api_node=node, exists=True))

    async def _follow_service_cidrs(self, api: NodeApi) -> None:
        async with aclosing(api.service_cidrs()) as news:
            async for cidrs in news:
                self._learn(replace(self._facts, service_cidrs=cidrs))

    def _learn(self, facts: Facts) -> None:
        before, self._facts = self._facts, facts
        if is_enough(self._settings, facts):
            self._known.set()
        if facts != before:
            self._changed()
