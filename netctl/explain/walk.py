"""What a walk through rules is made of. Pure.

A packet stands for the first one of a connection. Where a rule draws a number the walk goes all ways at once: each
branch has its share, and the shares sum to 1.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple, Protocol

from controlloop.family import Family, IPAddress

OURS = ("netproxy", "netagent", "NETPROXY-", "NETAGENT-")
"""How the names of our tables and chains begin."""

TRACE_TABLES = "netctl-trace-"
"""How the names of tables begin in which `netctl trace` watches: they decide nothing."""

DECISIONS = ("dnat", "snat", "masquerade", "drop", "reject")

HOOKS = ("prerouting", "input", "forward", "output", "postrouting")


class Place(NamedTuple):
    address: IPAddress
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Packet:
    source: IPAddress
    to: Place
    protocol: str
    """`tcp`, `udp` or `sctp`."""
    came_in: str = ""
    """The interface; empty for what this node sends."""
    goes_out: str = ""
    mark: int = 0
    called: Place | None = None
    """Where it was going before it was translated; None: it was not."""
    masqueraded: bool = False
    member_of: frozenset[str] = frozenset()
    """Sets that rules have put the source into on the way."""

    @property
    def family(self) -> Family:
        return Family.of(self.to.address)

    def translated(self, to: Place) -> "Packet":
        return replace(self, to=to, called=self.called or self.to)


class Verdict(Enum):
    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    UNKNOWN = "unknown"
    """Of a packet that was followed, and whose end nobody told."""

    @property
    def is_final(self) -> bool:
        """For the packet; after ACCEPT the next base chain looks at it."""
        return self is not Verdict.ACCEPT


class Branch(NamedTuple):
    share: float
    packet: Packet
    verdict: Verdict | None = None
    """None: it goes on behind this chain."""
    why: str = ""


class RouteAnswer(NamedTuple):
    """What the kernel says to `ip route get`."""

    kind: str
    """`unicast`, `local`, `blackhole`, `unreachable`, `prohibit`; `none`: there is no route; `no-forwarding`."""
    device: str = ""
    gateway: IPAddress | None = None
    source: IPAddress | None = None
    prefix: str = ""
    """Of the route that was taken."""
    mtu: int = 0
    """That the route itself names."""


class Sight(Protocol):
    """What the kernel is asked on the way."""

    def route(
        self, to: IPAddress, source: IPAddress | None = None, came_in: str = "", mark: int = 0
    ) -> RouteAnswer: ...

    def is_local(self, address: IPAddress) -> bool:
        """Whether this node has the address."""
        ...

    def element(self, table: str, container: str, kind: str, key: str) -> str | None:
        """The value at a key of a set or map, empty in a set; None: no such element.

        `table` is as `ip netproxy`, `kind` as `ipv4_addr . inet_service : verdict`, `key` as `10.96.0.1 . 80`.
        """
        ...

    def ranges(self, table: str, container: str) -> Sequence[Any]:
        """All that is in a set of ranges, as nft's JSON has it. Unsure for a map."""
        ...

    def in_ipset(self, name: str, address: IPAddress) -> bool | None:
        """None: nobody can tell."""
        ...

    def is_recent(self, name: str, address: IPAddress) -> bool | None:
        """Whether the match `recent` remembers the address in this list."""
        ...


class Unsure(Exception):  # noqa: N818 - not a fault: a rule that asks what this walk does not know
    """Whether a rule matches cannot be told from here; the text names what it asks."""


class NoMatchError(Exception):
    """The packet has no such field."""


@dataclass(frozen=True, slots=True)
class Step:
    hook: str
    place: str
    """`ip netproxy services`, `nat NETPROXY-SERVICES`."""
    does: str
    why: str

    @property
    def is_ours(self) -> bool:
        """By the chain's name in iptables, by the table's in nftables."""
        return any(word.startswith(OURS) for word in self.place.split()[-2:])

    @property
    def decides(self) -> bool:
        """Whether it says where the packet goes, or that it goes nowhere."""
        return self.does.split(", ")[-1].startswith(DECISIONS)


@dataclass(slots=True)
class Notes:
    """What is worth telling of a walk, in order, each thing once."""

    hook: str = ""
    steps: dict[Step, None] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)

    def step(self, place: str, does: str, why: str = "") -> None:
        self.steps[Step(self.hook, place, does, why)] = None

    def forget_jump(self, seen: int, chain: str) -> None:
        """A jump that led nowhere is not worth telling: since then there were `seen` steps, and there still are."""
        if len(self.steps) == seen and seen and next(reversed(self.steps)).does == f"jump {chain}":
            self.steps.popitem()

    def unsure(self, place: str, rule: str, reason: object) -> None:
        self.warnings[f"{self.hook}: {place} may catch it: {rule} (not decided here: {reason})"] = None


@dataclass(frozen=True, slots=True)
class BaseChain:
    priority: int
    """When the kernel comes to it, or to the place from which it calls all chains of type nat."""
    own_priority: int
    """When it is its turn there."""
    is_nat: bool
    place: str
    run: Callable[[Packet, Notes], list[Branch]]
    is_ours: bool = False


class Ruleset(Protocol):
    def base_chains(self, hook: str) -> Iterable[BaseChain]: ...


def merged(branches: Iterable[Branch]) -> list[Branch]:
    """Branches that came to the same are one."""
    shares: dict[tuple[Packet, Verdict | None, str], float] = {}
    for share, packet, verdict, why in branches:
        key = packet, verdict, why
        shares[key] = shares.get(key, 0.0) + share
    return [Branch(share, *key) for key, share in shares.items()]


def scaled(branches: Sequence[Branch], share: float) -> Iterator[Branch]:
    return (branch._replace(share=branch.share * share) for branch in branches)
