"""All objects that one frontend needs, those it shares with others included. Pure.

The verdict that a frontend's element gives is a chain for its policy and its number of slots, shared by all frontends
like it. Chains of their own have only frontends with a counter (round robin) or a memory (client affinity).
"""

from collections.abc import Sequence
from typing import NamedTuple

from controlloop.address import host
from controlloop.family import Family
from controlloop.nft.state import Chain, Container, Key, Rule, Value, labelled
from proxy.frontends import Endpoint, Frontend, Masquerade, Refusal, Scope
from proxy.nftables import names
from proxy.nftables.callers import Callers
from proxy.nftables.constant import ADDRESS_TYPE, HOST_BITS, networks_text, restricting, service_network
from proxy.nftables.selection import Selection, select

INSIDE = 32768
"""Where the slots of those begin who serve callers inside."""

MOST_CLIENTS = 1_048_576
"""Remembered for each endpoint of a service port."""


class Destination(NamedTuple):
    """Rules for the end of a chain, which send a connection to one of several endpoints."""

    name: str
    rules: tuple[Rule, ...]


NOWHERE = Destination("nowhere", ())


class FrontendPlan:
    """Collects the objects of one frontend."""

    def __init__(self, frontend: Frontend, callers: Callers, objects: dict[Key, Value]) -> None:
        self._frontend = frontend
        self._callers = callers
        self._objects = objects
        self._family = frontend.family
        self._ip = self._family.nft
        self._is_node_port = frontend.scope is Scope.NODE_PORT

    def collect(self) -> None:
        frontend = self._frontend
        place = f"{frontend.protocol.value} . {frontend.port}"
        if not self._is_node_port:
            address = host(self._family, int(frontend.address))
            place = f"{address} . {place}"
            self._objects[service_network(self._family, int(frontend.address) >> HOST_BITS[self._family])] = ""
            if frontend.scope is Scope.CLUSTER_IP:
                self._element(names.CLUSTER_IPS, address)
            self._restrict(place)
        if not frontend.endpoints:
            container = names.NO_ENDPOINT_NODE_PORTS if self._is_node_port else names.NO_ENDPOINTS
            self._element(container, place, "drop" if frontend.refusal is Refusal.DROP else "goto refuse")
        if frontend.endpoints or frontend.inside:
            self._element(names.NODE_PORTS if self._is_node_port else names.SERVICES, place, f"goto {self._entry()}")

    def _element(self, container: str, key: str, value: str = "") -> None:
        self._objects[Key("element", container, key)] = value

    def _chain(self, name: str, *rules: Rule) -> str:
        self._objects[Key("chain", name)] = Chain(None, rules)
        return name

    def _restrict(self, place: str) -> None:
        """Frontends with the same sources share the chain that drops all others."""
        if networks := networks_text(self._family, self._frontend.sources):
            rule = labelled("who may connect", f"{self._ip} saddr != {networks} drop")
            self._element(names.SOURCES, place, f"goto {self._chain(names.named('sources', networks), rule)}")
            self._objects.update(restricting(self._family))

    def _entry(self) -> str:
        """The chain that a connection to the frontend enters: who is masqueraded, and who gets which endpoints."""
        frontend, callers = self._frontend, self._callers
        to_all = self._destination(frontend.endpoints) if frontend.endpoints else NOWHERE
        if frontend.masquerade is Masquerade.UNLESS_POD:
            return self._chain(f"cluster-{to_all.name}", *callers.marking, *to_all.rules)
        if frontend.masquerade is Masquerade.ALWAYS:
            return self._chain(f"external-{to_all.name}", *callers.mark_all(), *to_all.rules)
        if not frontend.inside:
            return self._chain(f"local-{to_all.name}", *to_all.rules)
        to_inside = self._destination(frontend.inside, INSIDE)
        inside = self._chain(to_inside.name, *to_inside.rules)
        return self._chain(f"local-{to_all.name}-{inside}"[: names.LENGTH], *callers.nearby(inside), *to_all.rules)

    def _destination(self, endpoints: Sequence[Endpoint], first_slot: int = 0) -> Destination:
        for endpoint in endpoints:
            if endpoint.is_local:
                address = host(self._family, int(endpoint.address))
                self._element(names.HAIRPIN, f"{address} . {address}")
        selection = select(self._family, self._frontend.balance, endpoints)
        if self._frontend.affinity_s:
            return self._remembering(selection, first_slot)
        return self._forgetting(selection, first_slot)

    def _forgetting(self, selection: Selection, first_slot: int) -> Destination:
        container = names.endpoints_map(self._frontend.protocol, is_node_port=self._is_node_port)
        slots_of, family = self._slots_of(), self._family
        for slot, endpoint in enumerate(selection.slots, first_slot):
            target = f"{host(family, int(endpoint.address))} . {endpoint.port}"
            self._element(container, f"{slots_of} . {slot}", target)
        text = f"dnat {self._ip} to {self._drawn(selection, first_slot)} map @{container}"
        rule = labelled(f"one of {len(selection.slots)}, {selection.how}", text)
        return Destination(self._destination_name(selection, first_slot), (rule,))

    def _remembering(self, selection: Selection, first_slot: int) -> Destination:
        """Who was at an endpoint goes there again; whoever is new, or whose endpoint is gone, is sent to one.

        The slots are in the rule: the kernel goes through a map of verdicts once for each chain that looks into it.
        """
        memories = {endpoint: self._memory(endpoint) for endpoint in selection.slots}
        known = (
            labelled("was there before", f"{self._ip} saddr @{clients} goto {chain}")
            for chain, clients in memories.values()
        )
        slots = ", ".join(f"{slot} : goto {memories[endpoint][0]}" for slot, endpoint in enumerate(selection.slots))
        new = labelled(f"one of {len(selection.slots)}, {selection.how}", f"{selection.draw} vmap {{ {slots} }}")
        name = names.of_frontend("inside-affinity" if first_slot else "affinity", self._frontend)
        return Destination(name, (*known, new))

    def _memory(self, endpoint: Endpoint) -> tuple[str, str]:
        """The chain that remembers a client and sends it to the endpoint, and its set of clients."""
        frontend, address_type = self._frontend, ADDRESS_TYPE[self._family]
        chain, clients = names.of_endpoint(frontend, endpoint)
        declaration = f"type {address_type}; flags dynamic,timeout; size {MOST_CLIENTS}"
        self._objects[Key("container", clients)] = Container("set", address_type, declaration, is_dynamic=True)
        address = host(self._family, int(endpoint.address))
        target = f"{address}:{endpoint.port}" if self._family is Family.V4 else f"[{address}]:{endpoint.port}"
        remember = f"update @{clients} {{ {self._ip} saddr timeout {frontend.affinity_s}s }}"
        dnat = f"meta l4proto {frontend.protocol.value} dnat {self._ip} to {target}"
        # Two rules: the first one ends when the set is full, and the client is to be served all the same.
        self._chain(chain, labelled("remember the client", remember), labelled("to the endpoint", dnat))
        return chain, clients

    def _slots_of(self) -> str:
        """What the keys of this frontend's slots begin with."""
        port = str(self._frontend.port)
        return port if self._is_node_port else f"{host(self._family, int(self._frontend.address))} . {port}"

    def _drawn(self, selection: Selection, first_slot: int) -> str:
        """The expression that yields the key of a slot."""
        port = f"{self._frontend.protocol.value} dport"
        place = port if self._is_node_port else f"{self._ip} daddr . {port}"
        return f"{place} . {selection.draw}{f' offset {first_slot}' if first_slot else ''}"

    def _destination_name(self, selection: Selection, first_slot: int) -> str:
        kind = f"{'inside-' if first_slot else ''}{'node-port-' if self._is_node_port else ''}{selection.how}"
        if selection.counts:
            return names.of_frontend(kind, self._frontend)
        return f"{kind}-{self._frontend.protocol.value}-{len(selection.slots)}"
