"""The chains of one Service, and where they hang in the trees. Pure.

A packet meets, in this order, as far as the frontend needs it:

    a tree              by address or node port
    NETPROXY-ALLOW-...  may this client connect at all?
    NETPROXY-EXT-...    is it a pod, the node itself, or from outside: who serves it, and must it be masqueraded?
    NETPROXY-SVC-...    one endpoint for the callers of a ClusterIP, who are marked here unless they are pods
    NETPROXY-LB-...     one endpoint for the callers of an external address, when a SVC chain does not do the same

Frontends of one port of a Service share what would be alike: its node port and its external addresses have one EXT.

The names descend from SVC and LB over EXT and ALLOW to the digits of the trees, as the transaction declares the chains:
at every rule iptables-nft-restore walks a list of names up to that of the rule's chain.
"""

from collections.abc import Sequence

from controlloop.address import network
from controlloop.family import Family
from controlloop.iptables.chains import Key, Rules
from proxy.frontends import Endpoint, Frontend, Masquerade, Protocol, Refusal, Scope, ServicePortName
from proxy.iptables.balancing import Memory, balancing, comment, memory_name
from proxy.iptables.chains import PREFIX, SET, chain_name, set_key
from proxy.iptables.spaces import Ports
from proxy.iptables.surroundings import HAIRPIN, LOCAL_SOURCE, NODE_PORTS, REFUSED, REFUSED_PORTS, SERVICES, Dispatch
from proxy.iptables.tree import Root

SERVICE_CHAINS = tuple(f"{PREFIX}{kind}-" for kind in ("SVC", "LB", "EXT", "ALLOW"))

Leaf = tuple[Root, str]
"""A rule and the tree it hangs in."""


class ServiceRules:
    def __init__(self, dispatch: Dispatch, memory: Memory, frontends: Sequence[Frontend]) -> None:
        self.chains: dict[Key, Rules] = {}
        self.leaves: dict[Leaf, int] = {}
        self._dispatch = dispatch
        self._memory = memory
        self._alike: dict[tuple[ServicePortName, Protocol, Rules], str] = {}
        # ClusterIPs come first: others may use their chains.
        for frontend in sorted(frontends, key=_order):
            self._add(frontend)

    def _add(self, frontend: Frontend) -> None:
        if frontend.endpoints or frontend.inside:
            self._hang(SERVICES, NODE_PORTS, frontend, f"-j {self._entrance(frontend)}")
        if not frontend.endpoints:
            drops = frontend.refusal is Refusal.DROP
            self._refuse(frontend, "DROP" if drops else self._dispatch.reject(frontend.protocol))
        elif frontend.sources:
            # Whom the ALLOW chain let pass has another destination by now.
            self._refuse(frontend, "DROP")
        for endpoint in (*frontend.endpoints, *(frontend.inside or ())):
            if endpoint.is_local:
                self.leaves[HAIRPIN, _hairpin(self._dispatch.family, endpoint)] = int(endpoint.address)

    def _refuse(self, frontend: Frontend, how: str) -> None:
        self._hang(REFUSED, REFUSED_PORTS, frontend, f"{comment(frontend.name)}-j {how}")

    def _hang(self, by_address: Root, by_port: Root, frontend: Frontend, target: str) -> None:
        protocol = frontend.protocol.value
        rest = f"-p {protocol} -m {protocol} --dport {frontend.port} {target}"
        if frontend.scope is Scope.NODE_PORT:
            self.leaves[by_port, rest] = Ports.place(frontend.protocol, frontend.port)
        else:
            family, place = self._dispatch.family, int(frontend.address)
            self.leaves[by_address, f"-d {network(family, place, family.bits)} {rest}"] = place

    def _entrance(self, frontend: Frontend) -> str:
        """The chain for new connections to the frontend."""
        if frontend.inside is not None:
            inner = self._by_origin(frontend, frontend.inside)
        elif frontend.masquerade is Masquerade.ALWAYS:
            balance = self._balancing(frontend, frontend.endpoints, "")
            inner = self._chain("EXT", frontend, (*self._dispatch.mark, f"-j {balance}"))
        else:
            inner = self._cluster_ip(frontend)
        if not frontend.sources:
            return inner
        return self._chain("ALLOW", frontend, tuple(_allowed(frontend, inner)))

    def _cluster_ip(self, frontend: Frontend) -> str:
        rules = self._choice(frontend, frontend.endpoints)
        name = self._chain("SVC", frontend, (*self._dispatch.mark_strangers, *rules))
        # Who comes here already marked may as well be marked again.
        self._alike.setdefault((frontend.name, frontend.protocol, (*self._dispatch.mark, *rules)), name)
        return name

    def _balancing(self, frontend: Frontend, endpoints: Sequence[Endpoint], role: str) -> str:
        """The chain that only chooses; for callers that are marked, a ClusterIP's will do."""
        rules = self._choice(frontend, endpoints)
        if not role:
            after_mark = self._alike.get((frontend.name, frontend.protocol, (*self._dispatch.mark, *rules)))
            if after_mark:
                return after_mark
        return self._chain("LB", frontend, rules, role)

    def _by_origin(self, frontend: Frontend, inside: Sequence[Endpoint]) -> str:
        rules: list[str] = []
        if inside:
            everywhere = self._balancing(frontend, inside, "inside")
            if self._dispatch.from_pods is not None:
                rules.append(f"{self._dispatch.from_pods}-j {everywhere}")
            rules += [f"{LOCAL_SOURCE} {rule}" for rule in (*self._dispatch.mark, f"-j {everywhere}")]
        if frontend.endpoints:
            rules.append(f"-j {self._balancing(frontend, frontend.endpoints, 'outside')}")
        return self._chain("EXT", frontend, tuple(rules))

    def _choice(self, frontend: Frontend, endpoints: Sequence[Endpoint]) -> Rules:
        if frontend.affinity_s and self._memory is Memory.SETS:
            self.chains |= {set_key(memory_name(frontend, endpoint)): SET for endpoint in endpoints}
        return balancing(frontend, endpoints, self._memory)

    def _chain(self, kind: str, frontend: Frontend, rules: Rules, role: str = "") -> str:
        """A chain with these rules: that of an earlier frontend of the same port, or a new one."""
        alike = (frontend.name, frontend.protocol, rules)
        name = self._alike.get(alike)
        if name is None:
            name = self._alike[alike] = chain_name(kind, frontend, role)
            self.chains["nat", name] = rules
        return name


def _order(frontend: Frontend) -> tuple[bool, int, int, str]:
    return (frontend.scope is not Scope.CLUSTER_IP, int(frontend.address), frontend.port, frontend.protocol.value)


def _allowed(frontend: Frontend, target: str) -> Sequence[str]:
    """Jumps for the ranges of the frontend's family; iptables-save does not print a range that is everything."""
    ranges = [one for one in frontend.sources if Family.of(one) is frontend.family]
    texts = [(network(frontend.family, int(one.network_address), one.prefixlen), one.prefixlen) for one in ranges]
    return [f"-s {text} -j {target}" if length else f"-j {target}" for text, length in texts]


def _hairpin(family: Family, endpoint: Endpoint) -> str:
    """A pod that reaches itself has to see another source, or it answers itself without the node."""
    me = network(family, int(endpoint.address), family.bits)
    return f"-s {me} -d {me} -j MASQUERADE --random-fully"
