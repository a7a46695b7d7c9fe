"""Leases in Kubernetes: the podCIDRs and annotations of Nodes, in place of records in etcd.

Kubernetes gives out the subnets, and a lease ends with its Node. So there is nothing to choose, to renew or to race
for: a node writes its annotations, and looks whether they stay.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Never

import msgspec

from controlloop.errors import CompactedError, OperatorError, UnavailableError
from controlloop.family import Family, IPAddress
from controlloop.kubernetes.client import ApiClient
from controlloop.kubernetes.decode import Change, Put, Removed, Unreadable
from controlloop.kubernetes.resources import NODES
from controlloop.logs import Log
from controlloop.runner import Backoff
from subnet_alloc.annotations import WANTED, Annotations, Node, parse_pod_cidrs, pod_cidrs
from subnet_alloc.claims import Claims
from subnet_alloc.codec import MalformedError, parse_lease
from subnet_alloc.leasing import LeaseLostError, OwnLease
from subnet_alloc.model import LeaseAttrs, NetworkConfig
from subnet_alloc.registry import Batch, Listing

log = Log("subnet_alloc")

CONTEST_S = 60.0
"""A lease that is taken from us sooner than this after it was written is contested: we write ever more slowly."""


class KubernetesRegistry:
    """All leases; `Leases` for one follower."""

    def __init__(self, client: ApiClient, annotations: Annotations, node_name: str, net_config: Path) -> None:
        self._client = client
        self._annotations = annotations
        self._net_config = net_config
        self._claims = Claims(node_name)

    async def network_config(self) -> bytes | None:
        try:
            return self._net_config.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError(f"{self._net_config}: {error.strerror}") from error

    async def list(self) -> Listing:
        found = await self._client.list(NODES, Node)
        for one in found.unreadable:
            _tell_unreadable(one)
        self._claims.replace((put.name.name, self._annotations.record(put.content)) for put in found.objects)
        for put in found.objects:
            self._tell_contested(put.name.name)
        return Listing(number(found.revision), self._claims.records())

    async def watch(self, after: int) -> AsyncGenerator[Batch, None]:
        async with aclosing(self._client.watch(NODES, Node, str(after))) as changes:
            async for change in changes:
                yield self._apply(change)

    def _apply(self, change: Change[Node]) -> Batch:
        revision = number(change.revision)
        match change:
            case Put(_, name, node):
                batch = self._claims.put(name.name, self._annotations.record(node), revision)
                self._tell_contested(name.name)
                return batch
            case Removed(_, name):
                return self._claims.put(name.name, None, revision)
            case Unreadable():
                _tell_unreadable(change)
        return Batch(revision)

    def _tell_contested(self, node: str) -> None:
        if holder := self._claims.contested(node):
            log.warning("node left out", node=node, reason=f"its podCIDR is that of node {holder}")


class _Condition(msgspec.Struct):
    type: str
    status: str
    reason: str = ""


class _Status(msgspec.Struct):
    conditions: list[_Condition] = []


class _NodeStatus(msgspec.Struct):
    status: _Status


NETWORK_IS_UP = _Condition("NetworkUnavailable", "False", "FlannelIsUp")


class KubernetesLessor:
    """The own lease: the annotations of the own Node."""

    def __init__(
        self, client: ApiClient, annotations: Annotations, node_name: str, *, set_condition: bool = True
    ) -> None:
        """`set_condition`: whether the node's condition is ours to write (--set-node-network-unavailable)."""
        self._client = client
        self._annotations = annotations
        self._name = node_name
        self._set_condition = set_condition
        self._attrs: LeaseAttrs | None = None
        self._written_at = float("-inf")
        self._contest = Backoff()

    async def wanted_public_ip(self) -> dict[Family, IPAddress]:
        """What the administrator wrote on the Node in place of --public-ip and --public-ipv6."""
        node = (await self._client.get(NODES, self._name, Node)).content
        found = {family: self._annotations.address(node, WANTED, family) for family in Family}
        return {family: address for family, address in found.items() if address}

    async def acquire(self, attrs: LeaseAttrs, *, config: NetworkConfig) -> OwnLease:
        """Write what differs. UnavailableError while there is no such Node or it has no podCIDR; OperatorError when its
        podCIDR is none of the network's. Later on that is an UnavailableError too: it ends no agent that works.

        What peers read, and the lease that comes back, may hold another public IP (public-ip-overwrite).
        """
        node = (await self._client.get(NODES, self._name, Node)).content
        try:
            self._refuse_misfit(node, config)
        except OperatorError as error:
            if self._attrs is None:
                raise
            raise UnavailableError(str(error)) from error
        self._attrs = attrs
        if change := self._annotations.difference(node, attrs):
            await self._calm_down()
            written = {"metadata": {"annotations": change}}
            node = (await self._client.patch(NODES, self._name, written, Node, subresource="status")).content
        return self._lease(node, attrs)

    async def keep(self, own: OwnLease) -> Never:
        """Look that the Node says what we wrote. LeaseLostError when somebody changed it, its podCIDR, or what the
        administrator wants to have published; or when the Node is gone.
        """
        backoff = Backoff()
        revision = str(own.record.revision)
        selected = NODES.where(fields=f"metadata.name={self._name}")
        while True:
            try:
                async with aclosing(self._client.watch(selected, Node, revision)) as changes:
                    async for change in changes:
                        self._refuse_change(own, change)
                        revision = change.revision
                        backoff.reset()
            except CompactedError:
                revision = ""
            except UnavailableError as error:
                await self._pause("own node is not followed", error, backoff)
            if not revision:
                revision = await self._look(own, backoff)

    async def announce(self) -> None:
        """Let the scheduler know that pods have a network here. Comes back when the Node says so."""
        backoff = Backoff()
        while self._set_condition:
            try:
                if await self._announced():
                    return
                error = UnavailableError("the API server took the condition and does not show it")
            except UnavailableError as caught:
                error = caught
            await self._pause("node condition is not set", error, backoff)

    async def _announced(self) -> bool:
        found = await self._client.get(NODES, self._name, _NodeStatus)
        if NETWORK_IS_UP in found.content.status.conditions:
            return True
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        times = {"lastHeartbeatTime": now, "lastTransitionTime": now, "message": "Flannel is running on this node"}
        condition = {**msgspec.structs.asdict(NETWORK_IS_UP), **times}
        change = {"status": {"conditions": [condition]}}
        found = await self._client.patch(NODES, self._name, change, _NodeStatus, subresource="status")
        return NETWORK_IS_UP in found.content.status.conditions

    def _refuse_misfit(self, node: Node, config: NetworkConfig) -> None:
        cidrs = pod_cidrs(node)
        where = f"node {self._name}: podCIDR"
        if not cidrs:
            raise UnavailableError(f"{where} is not assigned yet (kube-controller-manager --allocate-node-cidrs)")
        try:
            subnets = parse_pod_cidrs(cidrs)
        except MalformedError as error:
            raise OperatorError(f"node {self._name}: {error}") from error
        for family, within in config.ranges.items():
            subnet = subnets.get(family)
            if subnet is None:
                raise OperatorError(f"{where} {', '.join(cidrs)}: none of IPv{family.value}, which the network has")
            if subnet.prefixlen < within.network.prefixlen or subnet.network_address not in within.network:
                raise OperatorError(f"{where} {subnet} is not within the network {within.network}")

    def _lease(self, node: Node, attrs: LeaseAttrs) -> OwnLease:
        record = self._annotations.record(node)
        if record is None or self._annotations.difference(node, attrs):
            raise UnavailableError(f"node {self._name}: the API server took our annotations and does not show them")
        try:
            return OwnLease(record, parse_lease(record.key, record.value))
        except MalformedError as error:
            raise UnavailableError(f"{record.key}: {error}") from error

    def _refuse_change(self, own: OwnLease, change: Change[Node]) -> None:
        match change:
            case Removed():
                raise LeaseLostError(f"node {self._name} is gone")
            case Put(_, _, node):
                self._refuse_foreign(own, node)

    def _refuse_foreign(self, own: OwnLease, node: Node) -> None:
        record = self._annotations.record(node)
        if self._attrs and (change := self._annotations.difference(node, self._attrs)):
            raise LeaseLostError(f"node {self._name}: somebody else wrote {', '.join(sorted(change))}")
        if record is None or record.key != own.record.key:
            raise LeaseLostError(f"node {self._name}: podCIDR is {', '.join(pod_cidrs(node))}, not {own.record.key}")

    async def _look(self, own: OwnLease, backoff: Backoff) -> str:
        """The own node as it is now, and since which revision; empty when it could not be had."""
        try:
            found = await self._client.list(NODES.where(fields=f"metadata.name={self._name}"), Node)
        except UnavailableError as error:
            await self._pause("own node is not followed", error, backoff)
            return ""
        if not found.objects:
            raise LeaseLostError(f"node {self._name} is gone")
        self._refuse_foreign(own, found.objects[0].content)
        return found.revision

    async def _calm_down(self) -> None:
        """Two writers who each undo the other must not do so as fast as the network carries it."""
        now = asyncio.get_running_loop().time()
        if now - self._written_at > CONTEST_S:
            self._contest.reset()
        else:
            await asyncio.sleep(self._contest.next())
        self._written_at = asyncio.get_running_loop().time()

    async def _pause(self, event: str, error: Exception, backoff: Backoff) -> None:
        wait_s = backoff.next()
        log.warning(event, node=self._name, error=error, retry_in_s=round(wait_s, 1))
        await asyncio.sleep(wait_s)


def number(revision: str) -> int:
    """Revisions are compared, and only numbers can be (Kubernetes 1.35: resourceVersion is one)."""
    if not (revision.isascii() and revision.isdigit()):
        raise UnavailableError(f"the API server's revision {revision!r} is no number")
    return int(revision)


def _tell_unreadable(one: Unreadable) -> None:
    log.warning("node skipped", node=one.name, reason=one.reason)
