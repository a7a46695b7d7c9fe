"""Which endpoint a new connection goes to, as rules. Pure.

Each rule takes its share of what the rules before it have left. Under affinity a client's address stands, with a
timeout, in the memory of the endpoint that it used last; who is in one goes there again.

The last rule says whose they are. In the rules that lead here every packet would pay for it, 0.5 us.
"""

import re
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import cache

from controlloop.address import host
from controlloop.family import Family
from controlloop.iptables.chains import Rules
from proxy.frontends import Balance, Endpoint, Frontend, ServicePortName
from proxy.iptables.chains import PREFIX, hashed

# Names of Kubernetes objects. Anything else stays out of the ruleset.
_LABEL = "[a-z0-9.-]{1,63}"
_PLAIN_NAME = re.compile(f"{_LABEL}/{_LABEL}(:{_LABEL})?")


class Memory(Enum):
    """What remembers clients."""

    SETS = "ipset"
    """A set for each endpoint: 8,192 clients; then a new one takes the place of another."""
    RECENT = "recent"
    """The match `recent`: as many clients of an endpoint as its module was loaded with, which is 100 by default."""


MEMORY_PREFIX = {Family.V4: f"{PREFIX}4-", Family.V6: f"{PREFIX}6-"}
"""The names of the two families' sets are in one space."""
RSOURCE = {family: f"--mask {host(family, (1 << family.bits) - 1)} --rsource" for family in Family}


def balancing(frontend: Frontend, endpoints: Sequence[Endpoint], memory: Memory) -> Rules:
    """Rules that send a new connection to one of the endpoints; the last one takes all that is left."""
    served = list(shares(frontend.balance, endpoints))
    if not frontend.affinity_s:
        rules = [_dnat(frontend, endpoint, take) for endpoint, take in served]
    else:
        named = [(endpoint, memory_name(frontend, endpoint), take) for endpoint, take in served]
        rules = list((_with_sets if memory is Memory.SETS else _with_recent)(frontend, named))
    rules[-1] = rules[-1].replace("-j ", f"{comment(frontend.name)}-j ")
    return tuple(rules)


def comment(name: ServicePortName) -> str:
    """Its slash makes iptables-save print it in quotes, as we do."""
    text = str(name)
    return f'-m comment --comment "{text}" ' if _PLAIN_NAME.fullmatch(text) else ""


def shares(balance: Balance, endpoints: Sequence[Endpoint]) -> Iterator[tuple[Endpoint, str]]:
    """Who gets new connections, with the match of its share. When all weigh nothing they are alike."""
    weights = [1] * len(endpoints)
    if balance is Balance.WEIGHTED and any(endpoint.weight > 0 for endpoint in endpoints):
        weights = [max(0, endpoint.weight) for endpoint in endpoints]
    left = sum(weights)
    for endpoint, weight in zip(endpoints, weights, strict=True):
        if weight:
            yield endpoint, _take(balance, weight, left)
            left -= weight


@cache
def _take(balance: Balance, share: int, left: int) -> str:
    if share == left:
        return ""
    if balance is Balance.ROUND_ROBIN:
        return f"-m statistic --mode nth --every {left} --packet 0 "
    return f"-m statistic --mode random --probability {probability(share, left)} "


def probability(share: int, left: int) -> str:
    """As iptables-save prints it: the kernel keeps it as a fraction of 2**31 (xt_statistic)."""
    return f"{round(2**31 * share / left) / 2**31:.11f}"


def _dnat(frontend: Frontend, endpoint: Endpoint, match: str) -> str:
    address = endpoint.address
    # Family.of() for each of them would take a tenth of a plan's time.
    text = host(Family.V4, int(address)) if address.version == 4 else f"[{host(Family.V6, int(address))}]"
    return f"-p {frontend.protocol.value} {match}-j DNAT --to-destination {text}:{endpoint.port}"


def memory_name(frontend: Frontend, endpoint: Endpoint) -> str:
    """One for each endpoint of a Service's port, whichever of its frontends the client calls."""
    text = f"{frontend.name} {frontend.protocol.value} {int(endpoint.address)} {endpoint.port}"
    return hashed(MEMORY_PREFIX[frontend.family], text)


Named = Sequence[tuple[Endpoint, str, str]]
"""Endpoint, name of its memory, match of its share."""


def _with_sets(frontend: Frontend, named: Named) -> Iterator[str]:
    """SET goes on to the next rule; --exist starts the time anew."""
    keep = f"src --exist --timeout {frontend.affinity_s}"
    for endpoint, name, _ in named if len(named) > 1 else ():
        known = f"-m set --match-set {name} src "
        yield f"{known}-j SET --add-set {name} {keep}"
        yield _dnat(frontend, endpoint, known)
    for endpoint, name, take in named:
        yield f"{take}-j SET --add-set {name} {keep}"
        yield _dnat(frontend, endpoint, f"-m set --match-set {name} src " if take else "")


def _with_recent(frontend: Frontend, named: Named) -> Iterator[str]:
    """The match itself remembers (--set) and starts the time anew (--update)."""
    who = RSOURCE[frontend.family]
    for endpoint, name, _ in named if len(named) > 1 else ():
        known = f"-m recent --update --seconds {frontend.affinity_s} --reap --name {name} {who} "
        yield _dnat(frontend, endpoint, known)
    for endpoint, name, take in named:
        yield _dnat(frontend, endpoint, f"{take}-m recent --set --name {name} {who} ")
