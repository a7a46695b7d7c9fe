"""What the API server says of this node and of the cluster's service addresses."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from controlloop.errors import CompactedError
from controlloop.family import IPNetwork
from controlloop.following import Following
from controlloop.kubernetes.answers import DeniedError, NotFoundError
from controlloop.kubernetes.client import ApiClient
from controlloop.kubernetes.decode import Change, Listing, Name, Put, Removed
from controlloop.kubernetes.resources import NODES, SERVICE_CIDRS
from controlloop.logs import Log
from proxy.node_facts import ApiNode, ServiceCidr, networks

ABSENT_S = 300.0
"""Until ServiceCIDRs that do not exist, or are not for us, are asked for again."""

log = Log("node")

NodeStep = Listing[ApiNode] | Change[ApiNode]
CidrStep = Listing[ServiceCidr] | Change[ServiceCidr]


class NodeApi:
    def __init__(self, client: ApiClient, node_name: str) -> None:
        self._client = client
        self._own = NODES.where(fields=f"metadata.name={node_name}")
        self._cidrs: dict[Name, tuple[str, ...]] = {}
        self._told_absent = False

    async def nodes(self) -> AsyncGenerator[ApiNode | None, None]:
        """The own Node as it is, for ever; None while there is none."""
        unheard_s = partial(self._client.unheard_s, self._own)
        following = Following("own node", self._list_node, self._watch_node, unheard_s)
        async with aclosing(following.news()) as news:
            async for step in news:
                match step:
                    case Listing():
                        yield next((put.content for put in step.objects), None)
                    case Put(_, _, node):
                        yield node
                    case Removed():
                        yield None

    async def service_cidrs(self) -> AsyncGenerator[tuple[IPNetwork, ...], None]:
        """All of them, for ever: as they are, and whenever they change. Nothing while the cluster has no such kind, or
        does not let us read it.
        """
        unheard_s = partial(self._client.unheard_s, SERVICE_CIDRS)
        following = Following("ServiceCIDRs", self._list_cidrs, self._watch_cidrs, unheard_s)
        async with aclosing(following.news()) as news:
            async for step in news:
                yield self._take(step)

    async def _list_node(self) -> AsyncGenerator[NodeStep, None]:
        yield await self._client.list(self._own, ApiNode)

    async def _watch_node(self, after: str) -> AsyncGenerator[NodeStep, None]:
        async with aclosing(self._client.watch(self._own, ApiNode, after)) as changes:
            async for change in changes:
                yield change

    async def _list_cidrs(self) -> AsyncGenerator[CidrStep, None]:
        while True:
            try:
                listing = await self._client.list(SERVICE_CIDRS, ServiceCidr)
            except (DeniedError, NotFoundError) as error:
                if not self._told_absent:
                    log.info("packets to unused service addresses are not dropped", reason=error)
                self._told_absent = True
                await asyncio.sleep(ABSENT_S)
            else:
                yield listing
                return

    async def _watch_cidrs(self, after: str) -> AsyncGenerator[CidrStep, None]:
        try:
            async with aclosing(self._client.watch(SERVICE_CIDRS, ServiceCidr, after)) as changes:
                async for change in changes:
                    yield change
        except (DeniedError, NotFoundError) as error:
            raise CompactedError(str(error)) from error

    def _take(self, step: CidrStep) -> tuple[IPNetwork, ...]:
        match step:
            case Listing():
                self._cidrs = {put.name: put.content.spec.cidrs or () for put in step.objects}
            case Put(_, name, cidr):
                self._cidrs[name] = cidr.spec.cidrs or ()
            case Removed(_, name):
                self._cidrs.pop(name, None)
        texts = sorted({text for cidrs in self._cidrs.values() for text in cidrs})
        return tuple(dict.fromkeys(networks(texts)))
