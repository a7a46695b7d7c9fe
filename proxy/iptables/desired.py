"""The rules that the kernel should hold for the frontends of one family.

Pure. Every frontend with endpoints has one chain with its DNAT rules inline and a place in the tree of services;
one without endpoints has a place in the tree of rejections. The semantics are those of kube-proxy's iptables mode.
"""

import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from functools import cache

from controlloop.address import host, network
from controlloop.delta import Delta, Ledger
from controlloop.family import Family, IPNetwork
from controlloop.iptables.chains import Key, Rules
from proxy.frontends import Balance, Frontend, ServiceName, ServicePortName
from proxy.iptables.chains import PREFIX, hashed
from proxy.iptables.tree import Root, Tree
from proxy.node import PodDetector, Surroundings

SERVICES = Root("nat", f"{PREFIX}SERVICES")
REJECT = Root("filter", f"{PREFIX}REJECT")
HAIRPIN = Root("nat", f"{PREFIX}HAIRPIN", f"{PREFIX}H")
POSTROUTING = f"{PREFIX}POSTROUTING"

MASQUERADE_BIT = 0x4000
_BIT = f"{MASQUERADE_BIT:#x}"
_ON_REJECT = (f"-m conntrack --ctstate NEW -j {REJECT.chain}",)

CONSTANT: Mapping[Key, Rules] = {
    ("nat", "PREROUTING"): (f"-j {SERVICES.chain}",),
    ("nat", "OUTPUT"): (f"-j {SERVICES.chain}",),
    ("nat", "POSTROUTING"): (f"-j {POSTROUTING}",),
    ("nat", POSTROUTING): (
        f"-m conntrack --ctstate DNAT -j {HAIRPIN.chain}",
        f"-m mark ! --mark {_BIT}/{_BIT} -j RETURN",
        # The mark goes off: a tunnel's outer packet inherits it and would be masqueraded once more.
        f"-j MARK --set-xmark {_BIT}/0x0",
        "-j MASQUERADE --random-fully",
    ),
    ("filter", "INPUT"): _ON_REJECT,
    ("filter", "FORWARD"): _ON_REJECT,
    ("filter", "OUTPUT"): _ON_REJECT,
}

# Names of Kubernetes objects. Anything else stays out of the ruleset.
_LABEL = "[a-z0-9.-]{1,63}"
_PLAIN_NAME = re.compile(f"{_LABEL}/{_LABEL}(:{_LABEL})?")

Leaf = tuple[Root, str]
"""A rule and the tree it hangs in."""


class IptablesPlanner:
    """Planner of one family. Frontends of the other one are none of its business.

    Connections from elsewhere than pods are masqueraded; when nobody can tell who is one, only hairpin is.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._family = family = surroundings.family
        self._chains: Ledger[ServiceName, Key, Rules] = Ledger()
        self._leaves: Ledger[ServiceName, Leaf, int] = Ledger()
        self._trees = {root: Tree(family, root) for root in (SERVICES, REJECT, HAIRPIN)}
        icmp = "icmp" if family is Family.V4 else "icmp6"
        self._reject = f"REJECT --reject-with {icmp}-port-unreachable"
        self._first_rule = _mark_unless_from(surroundings.pods)

    def settle(self, surroundings: Surroundings, delta: Delta[Key, Rules]) -> None:
        raise NotImplementedError

    @property
    def objects(self) -> Mapping[Key, Rules]:
        trees = (tree.objects for tree in self._trees.values())
        return ChainMap(dict(CONSTANT), self._chains.objects, *trees)

    def replace(self, service: ServiceName, frontends: Sequence[Frontend], delta: Delta[Key, Rules]) -> None:
        """See proxy.backend.Planner. The cost is that of this Service's rules and of the chains on its paths."""
        chains: dict[Key, Rules] = {}
        leaves: dict[Leaf, int] = {}
        for frontend in frontends:
            if frontend.family is self._family:
                self._want(frontend, chains, leaves)
        self._chains.replace(service, chains, delta)
        moved: Delta[Leaf, int] = Delta()
        self._leaves.replace(service, leaves, moved)
        for (root, rule), address in moved.drop.items():
            self._trees[root].remove(address, rule)
        for (root, rule), address in moved.put.items():
            self._trees[root].insert(address, rule)
        for tree in self._trees.values():
            tree.record(delta)

    def _want(self, frontend: Frontend, chains: dict[Key, Rules], leaves: dict[Leaf, int]) -> None:
        address = int(frontend.address)
        match = self._match(frontend)
        if not frontend.endpoints:
            leaves[REJECT, f"{match} -j {self._reject}"] = address
            return
        name = _name(frontend)
        chains["nat", name] = self._chain(frontend)
        leaves[SERVICES, f"{match} -j {name}"] = address
        for endpoint in frontend.endpoints:
            if endpoint.is_local:
                leaves[HAIRPIN, self._hairpin(int(endpoint.address))] = int(endpoint.address)

    def _match(self, frontend: Frontend) -> str:
        protocol = frontend.protocol.value
        to = network(self._family, int(frontend.address), self._family.bits)
        return f"-d {to} -p {protocol} -m {protocol} --dport {frontend.port}{_comment(frontend.name)}"

    def _chain(self, frontend: Frontend) -> Rules:
        protocol = frontend.protocol.value
        last = len(frontend.endpoints)
        return self._first_rule + tuple(
            f"-p {protocol}{_share(frontend.balance, last - i)} -j DNAT --to-destination "
            f"{self._socket(int(endpoint.address), endpoint.port)}"
            for i, endpoint in enumerate(frontend.endpoints)
        )

    def _socket(self, address: int, port: int) -> str:
        text = host(self._family, address)
        return f"{text}:{port}" if self._family is Family.V4 else f"[{text}]:{port}"

    def _hairpin(self, address: int) -> str:
        """A pod that reaches itself has to see another source, or it answers itself without the node."""
        me = network(self._family, address, self._family.bits)
        return f"-s {me} -d {me} -j MASQUERADE --random-fully"


def _name(frontend: Frontend) -> str:
    """Of no two frontends the same, and of no frontend after its Service is made anew under another name."""
    address, protocol, port = frontend.key
    return hashed(f"{PREFIX}SVC-", f"{frontend.name} {int(address)} {protocol.value} {port}")


def _comment(name: ServicePortName) -> str:
    """Its slash makes iptables-save print it in quotes, as we do."""
    text = str(name)
    return f' -m comment --comment "{text}"' if _PLAIN_NAME.fullmatch(text) else ""


def _mark_unless_from(cidr: PodDetector) -> Rules:
    """iptables-nft cannot write `! -s 0.0.0.0/0`, which nothing matches."""
    if not isinstance(cidr, IPNetwork) or not cidr.prefixlen:
        return ()
    pods = network(Family.of(cidr), int(cidr.network_address), cidr.prefixlen)
    return (f"! -s {pods} -j MARK --set-xmark {_BIT}/{_BIT}",)


@cache
def _share(balance: Balance, left: int) -> str:
    """The match that takes one of `left` connections, as each rule sees only what the ones before it left over."""
    if left == 1:
        return ""
    if balance is Balance.ROUND_ROBIN:
        return f" -m statistic --mode nth --every {left} --packet 0"
    return f" -m statistic --mode random --probability {probability(left)}"


def probability(left: int) -> str:
    """1/left as iptables-save prints it: the kernel keeps it as a fraction of 2**31 (xt_statistic)."""
    return f"{round(2**31 / left) / 2**31:.11f}"
