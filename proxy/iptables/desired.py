"""The rules that the kernel should hold for the frontends of one family.

Pure. A packet meets the tree of addresses, then, if it is for this node, the tree of node ports; what no endpoint
takes is refused in the filter table. The semantics are those of kube-proxy's iptables mode (docs/adr/0016).
"""

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence

from controlloop.delta import Delta, Ledger
from controlloop.iptables.chains import Key, Rules
from proxy.frontends import Frontend, Protocol, ServiceName
from proxy.iptables.balancing import Memory
from proxy.iptables.service_rules import Leaf, ServiceRules
from proxy.iptables.spaces import Addresses, Ports
from proxy.iptables.surroundings import (
    ADDRESS_TREES,
    HAIRPIN,
    HEALTH_CHECKS,
    NODE_PORTS,
    PORT_TREES,
    REFUSED,
    REFUSED_PORTS,
    SERVICES,
    Dispatch,
    Spans,
    constant_chains,
    node_port_places,
)
from proxy.iptables.tree import Tree
from proxy.node import Surroundings

THE_NODE = None
"""Owns the rules that no Service has a part in."""

Owner = ServiceName | None


class IptablesPlanner:
    """Planner of one family. Frontends of the other one are none of its business."""

    def __init__(self, surroundings: Surroundings, memory: Memory = Memory.SETS) -> None:
        self._family = surroundings.family
        self._memory = memory
        self._dispatch = Dispatch.of(surroundings)
        self._chains: Ledger[Owner, Key, Rules] = Ledger()
        self._leaves: Ledger[Owner, Leaf, int] = Ledger()
        self._frontends: dict[ServiceName, Sequence[Frontend]] = {}
        self._spans: Spans | None = None
        """What `_lead_to_trees` was told last; None: to be told anew."""
        addresses = Addresses(self._family)
        self._trees = {root: Tree(addresses, root) for root in ADDRESS_TREES}
        self._trees |= {root: Tree(Ports(), root) for root in PORT_TREES}
        self.settle(surroundings, Delta())

    @property
    def objects(self) -> Mapping[Key, Rules]:
        return ChainMap(self._chains.objects, *(tree.objects for tree in self._trees.values()))

    def owned(self) -> Iterable[tuple[Owner, Sequence[tuple[str, str]]]]:
        """Rules that hang in trees stand for themselves, as (table, rule): their chains are everybody's."""
        chains, leaves = self._chains.owned(), self._leaves.owned()
        return (
            (owner, [*chains.get(owner, ()), *((root.table, rule) for root, rule in leaves.get(owner, ()))])
            for owner in chains.keys() | leaves.keys()
        )

    def replace(self, service: ServiceName, frontends: Sequence[Frontend], delta: Delta[Key, Rules]) -> None:
        """See proxy.backend.Planner. The cost is that of this Service's rules and of the chains on its paths."""
        self.replace_all([(service, frontends)], delta)

    def replace_all(self, changed: Iterable[tuple[ServiceName, Sequence[Frontend]]], delta: Delta[Key, Rules]) -> None:
        """Each chain of the trees is listed once, however many of the Services are below it."""
        for service, frontends in changed:
            self._replace(service, frontends, delta)
        self._record_trees(delta)

    def _replace(self, service: ServiceName, frontends: Sequence[Frontend], delta: Delta[Key, Rules]) -> None:
        ours = [frontend for frontend in frontends if frontend.family is self._family]
        if ours:
            self._frontends[service] = ours
        else:
            self._frontends.pop(service, None)
        wanted = ServiceRules(self._dispatch, self._memory, ours)
        self._want(service, wanted.chains, wanted.leaves, delta)

    def settle(self, surroundings: Surroundings, delta: Delta[Key, Rules]) -> None:
        """See proxy.backend.Planner. Who is a pod, or is marked, is part of every Service's chains; all else is not."""
        self._surroundings, self._spans = surroundings, None
        health_checks: dict[Leaf, int] = {
            (HEALTH_CHECKS, f"-p tcp -m tcp --dport {port} -j ACCEPT"): Ports.place(Protocol.TCP, port)
            for port in surroundings.health_check_ports
        }
        self._hang(THE_NODE, health_checks)
        before, self._dispatch = self._dispatch, Dispatch.of(surroundings)
        if self._dispatch != before:
            for service, frontends in list(self._frontends.items()):
                self._replace(service, frontends, delta)
        self._record_trees(delta)

    def _want(
        self, owner: Owner, chains: Mapping[Key, Rules], leaves: Mapping[Leaf, int], delta: Delta[Key, Rules]
    ) -> None:
        self._chains.replace(owner, chains, delta)
        self._hang(owner, leaves)

    def _hang(self, owner: Owner, leaves: Mapping[Leaf, int]) -> None:
        moved: Delta[Leaf, int] = Delta()
        self._leaves.replace(owner, leaves, moved)
        for (root, rule), place in moved.drop.items():
            self._trees[root].remove(place, rule)
        for (root, rule), place in moved.put.items():
            self._trees[root].insert(place, rule)

    def _record_trees(self, delta: Delta[Key, Rules]) -> None:
        spans = Spans(*(self._trees[root].spans() for root in (NODE_PORTS, REFUSED, REFUSED_PORTS, HAIRPIN)))
        if spans != self._spans:
            self._lead_to_trees(spans, delta)
            self._spans = spans
        for tree in self._trees.values():
            tree.record(delta)

    def _lead_to_trees(self, spans: Spans, delta: Delta[Key, Rules]) -> None:
        """Let the rules that lead to trees be for what is in them."""
        places = node_port_places(self._surroundings, spans.node_ports)
        self._trees[SERVICES].end_with(tuple(f"{place} -j {NODE_PORTS.chain}" for place in places))
        self._chains.replace(THE_NODE, constant_chains(self._surroundings, spans), delta)
