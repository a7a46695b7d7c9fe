"""How rules tell callers apart, and mark those that are to be masqueraded. Pure."""

from typing import NamedTuple

from controlloop.family import Family
from controlloop.nft.state import Rule, labelled
from proxy.node import Interfaces, Surroundings


class Callers(NamedTuple):
    """Rules, with all that they depend on in the surroundings."""

    family: Family
    mark: str
    """The statement that marks a connection to be masqueraded."""
    is_pod: str
    """Matches a packet from a pod; empty: nobody can tell."""
    marking: tuple[Rule, ...]
    """Marks callers of a ClusterIP who are to be masqueraded."""

    def mark_all(self) -> tuple[Rule, ...]:
        return (labelled("the answer must come back through this node", self.mark),)

    def nearby(self, inside: str) -> tuple[Rule, ...]:
        """Sends callers that are pods, or this node, to the chain `inside`."""
        pods = labelled("a pod reaches all endpoints", f"{self.is_pod} goto {inside}")
        node = labelled("so does this node", f"fib saddr type local {self.mark} goto {inside}")
        return (pods, node) if self.is_pod else (node,)


def callers(surroundings: Surroundings) -> Callers:
    family = surroundings.family
    mark = f"meta mark set meta mark or {surroundings.mark:#x}"
    is_pod, is_no_pod = pod_matches(surroundings)
    marking: tuple[Rule, ...] = ()
    if surroundings.masquerade_all:
        marking = (labelled("everybody is masqueraded", mark),)
    elif is_no_pod:
        marking = (labelled("not a pod: the answer must come back through this node", f"{is_no_pod} {mark}"),)
    return Callers(family, mark, is_pod, marking)


def pod_matches(surroundings: Surroundings) -> tuple[str, str]:
    """Matches a packet from a pod, and one from elsewhere. Both empty: nobody can tell."""
    match surroundings.pods:
        case None:
            return "", ""
        case Interfaces(name, is_prefix):
            field, operand = "iifname", f'"{name}{"*" if is_prefix else ""}"'
        case network:
            field, operand = f"{surroundings.family.nft} saddr", str(network)
    return f"{field} {operand}", f"{field} != {operand}"
