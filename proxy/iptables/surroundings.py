"""The rules that depend on the node alone, and the words in which its surroundings appear in other rules. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from controlloop.address import network
from controlloop.family import Family, IPNetwork
from controlloop.iptables.chains import Key, Rules
from proxy.frontends import Protocol
from proxy.iptables.chains import PREFIX
from proxy.iptables.tree import Root
from proxy.node import Interfaces, Surroundings

SERVICES = Root("nat", f"{PREFIX}SERVICES")
NODE_PORTS = Root("nat", f"{PREFIX}NODE-PORTS")
HAIRPIN = Root("nat", f"{PREFIX}HAIRPIN", f"{PREFIX}H")
REFUSED = Root("filter", f"{PREFIX}REFUSED")
REFUSED_PORTS = Root("filter", f"{PREFIX}REFUSED-PORTS")
HEALTH_CHECKS = Root("filter", f"{PREFIX}HEALTH-CHECKS", f"{PREFIX}C")
ADDRESS_TREES = (SERVICES, HAIRPIN, REFUSED)
PORT_TREES = (NODE_PORTS, REFUSED_PORTS, HEALTH_CHECKS)

POSTROUTING = f"{PREFIX}POSTROUTING"
MASQUERADE = f"{PREFIX}MASQUERADE"
INPUT = f"{PREFIX}INPUT"
FORWARD = f"{PREFIX}FORWARD"
LOOPBACK_ONLY = f"{PREFIX}LOOPBACK-ONLY"

LOOPBACK = {Family.V4: "127.0.0.0/8", Family.V6: "::1/128"}
LOCAL_SOURCE = "-m addrtype --src-type LOCAL"
LOCAL_DESTINATION = "-m addrtype --dst-type LOCAL"
NEW = "-m conntrack --ctstate NEW"


@dataclass(frozen=True)
class Dispatch:
    """How callers are told apart and marked: what every frontend's chains depend on."""

    family: Family
    mark: Rules
    """The rule that marks a packet for masquerading."""
    mark_strangers: Rules
    """The same for callers of a ClusterIP: who is no pod, everybody, or nobody."""
    from_pods: str | None
    """The match of packets that pods send, with a blank behind it; empty: all are. None: nobody can tell."""

    @classmethod
    def of(cls, surroundings: Surroundings) -> "Dispatch":
        mark = f"-j MARK --set-xmark {surroundings.mark:#x}/{surroundings.mark:#x}"
        pods = _from_pods(surroundings)
        strangers: Rules = ()
        if surroundings.masquerade_all:
            strangers = (mark,)
        elif pods:
            # An empty match cannot be negated, and nobody is outside of it.
            strangers = (f"! {pods}{mark}",)
        return cls(surroundings.family, (mark,), strangers, pods)

    def reject(self, protocol: Protocol) -> str:
        """A reset is understood by every TCP at once, and the kernel sends as many as are needed; ICMP it rations."""
        if protocol is Protocol.TCP:
            return "REJECT --reject-with tcp-reset"
        return f"REJECT --reject-with {'icmp' if self.family is Family.V4 else 'icmp6'}-port-unreachable"


def _from_pods(surroundings: Surroundings) -> str | None:
    pods = surroundings.pods
    if isinstance(pods, Interfaces):
        name = f"{pods.name}+" if pods.is_prefix else pods.name
        return f"-i {name} " if pods.name else ""
    if isinstance(pods, IPNetwork):
        text = network(surroundings.family, int(pods.network_address), pods.prefixlen)
        return f"-s {text} " if pods.prefixlen else ""
    return None


def node_port_places(surroundings: Surroundings, ranges: Sequence[str]) -> Iterator[str]:
    """Matches of the packets that may be for a node port; `ranges` are those of the protocols and ports that are one.

    Whether an address is local is asked of the routing table, which costs a packet for nobody more than all the rest.
    """
    loopback = LOOPBACK[surroundings.family]
    serves_localhost = surroundings.family is Family.V4 and surroundings.localhost_node_ports
    if surroundings.node_port_addresses is None:
        but_loopback = "" if serves_localhost else f"! -d {loopback} "
        yield from (f"{but_loopback}{each} {LOCAL_DESTINATION}" for each in ranges)
        return
    for address in sorted(surroundings.node_port_addresses, key=int):
        if Family.of(address) is surroundings.family and not address.is_loopback:
            yield f"-d {network(surroundings.family, int(address), surroundings.family.bits)}"
    if serves_localhost:
        yield f"-d {loopback}"


class Spans(NamedTuple):
    """Matches of what the rules of a tree may be for: the others need not go there."""

    node_ports: Sequence[str]
    refused: Sequence[str]
    refused_ports: Sequence[str]
    hairpin: Sequence[str]


def constant_chains(surroundings: Surroundings, spans: Spans) -> Mapping[Key, Rules]:
    """All chains that no Service has a part in, but for the spans of trees."""
    health_checks = (f"-p tcp -j {HEALTH_CHECKS.chain}",) if surroundings.health_check_ports else ()
    return {
        ("nat", "PREROUTING"): (f"-j {SERVICES.chain}",),
        ("nat", "OUTPUT"): (f"-j {SERVICES.chain}",),
        ("nat", "POSTROUTING"): (f"-j {POSTROUTING}",),
        **_masquerading(surroundings.mark, spans.hairpin),
        ("filter", "INPUT"): (f"{NEW} -j {INPUT}", *health_checks),
        ("filter", "FORWARD"): (f"-j {FORWARD}",),
        ("filter", "OUTPUT"): (f"{NEW} -j {REFUSED.chain}",),
        ("filter", INPUT): (
            f"-j {REFUSED.chain}",
            *(f"{place} -j {REFUSED_PORTS.chain}" for place in node_port_places(surroundings, spans.refused_ports)),
        ),
        ("filter", FORWARD): _forward(surroundings, spans.refused),
        **_loopback_guard(surroundings),
    }


def _masquerading(mark: int, hairpin: Sequence[str]) -> Mapping[Key, Rules]:
    return {
        ("nat", POSTROUTING): (
            # Who is marked need not be looked for among those who call themselves.
            f"-m mark --mark {mark:#x}/{mark:#x} -g {MASQUERADE}",
            *(f"{each} -m conntrack --ctstate DNAT -j {HAIRPIN.chain}" for each in hairpin),
        ),
        ("nat", MASQUERADE): (
            # The mark goes off: a tunnel's outer packet inherits it and would be masqueraded once more.
            f"-j MARK --set-xmark {mark:#x}/0x0",
            "-j MASQUERADE --random-fully",
        ),
    }


def _forward(surroundings: Surroundings, refused: Sequence[str]) -> Rules:
    mark = surroundings.mark
    # A packet out of window is not translated back; its receiver would answer it with a reset.
    invalid = () if surroundings.tcp_be_liberal else ("-m conntrack --ctstate INVALID -j DROP",)
    return (
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        *invalid,
        f"-m mark --mark {mark:#x}/{mark:#x} -j ACCEPT",
        # To compare an address costs iptables-nft less than to ask for a state.
        *(f"{each} {NEW} -j {REFUSED.chain}" for each in refused),
    )


def _loopback_guard(surroundings: Surroundings) -> Mapping[Key, Rules]:
    """Localhost node ports need route_localnet, and with it the kernel takes 127.0.0.0/8 from the wire: not here."""
    if surroundings.family is not Family.V4 or not surroundings.localhost_node_ports:
        return {}
    return {
        # Every packet meets these. iptables-nft would ask for an interface's name before it looks at an address.
        ("raw", "PREROUTING"): tuple(f"{option} {LOOPBACK[Family.V4]} -j {LOOPBACK_ONLY}" for option in ("-s", "-d")),
        ("raw", LOOPBACK_ONLY): ("! -i lo -j DROP",),
    }
