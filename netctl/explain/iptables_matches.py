"""What the matches of an iptables rule say of a packet. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from netctl.explain.walk import Packet, Sight, Unsure

ALL_BITS = "0xffffffff"


@dataclass(frozen=True, slots=True)
class Question:
    """One option of a rule, about one packet."""

    name: str
    value: str
    options: Mapping[str, str]
    """All of the rule."""
    packet: Packet
    sight: Sight


Answer = bool | float
"""A number below 1 for a draw."""


def answer(question: Question) -> Answer:
    """Unsure of what is not known here."""
    asked = f"{question.name} {question.value}".rstrip()
    if question.name not in ANSWERS:
        raise Unsure(asked)
    try:
        return ANSWERS[question.name](question)
    except ValueError:
        # As of a mask with holes.
        raise Unsure(asked) from None


def source(asked: Question) -> Answer:
    return asked.packet.source in ip_network(asked.value, strict=False)


def destination(asked: Question) -> Answer:
    return asked.packet.to.address in ip_network(asked.value, strict=False)


def came_in(asked: Question) -> Answer:
    return _is_interface(asked.packet.came_in, asked.value)


def goes_out(asked: Question) -> Answer:
    return _is_interface(asked.packet.goes_out, asked.value)


def _is_interface(name: str, wanted: str) -> bool:
    return name.startswith(wanted[:-1]) if wanted.endswith("+") else name == wanted


def protocol(asked: Question) -> Answer:
    return asked.value in (asked.packet.protocol, "all")


def port(asked: Question) -> Answer:
    return any(_in_range(asked.packet.to.port, part) for part in asked.value.split(","))


def _in_range(number: int, text: str) -> bool:
    first, colon, last = text.partition(":")
    return int(first or 0) <= number <= (int(last or 65535) if colon else int(first))


def mark(asked: Question) -> Answer:
    wanted, _, mask = asked.value.partition("/")
    return asked.packet.mark & int(mask or ALL_BITS, 0) == int(wanted, 0)


def address_type(asked: Question) -> Answer:
    if asked.value != "LOCAL":
        raise Unsure(f"{asked.name} {asked.value}")
    packet = asked.packet
    return asked.sight.is_local(packet.source if asked.name == "--src-type" else packet.to.address)


def state(asked: Question) -> Answer:
    states = {"NEW", "DNAT"} if asked.packet.called else {"NEW"}
    return not states.isdisjoint(asked.value.split(","))


def ip_set(asked: Question) -> Answer:
    name, direction = asked.value.split(" ")
    if direction not in ("src", "dst"):
        raise Unsure(f"the set {name}")
    if direction == "src" and name in asked.packet.member_of:
        return True
    address = asked.packet.source if direction == "src" else asked.packet.to.address
    return _sure(asked.sight.in_ipset(name, address), f"the set {name}")


def recent(asked: Question) -> Answer:
    name = asked.options.get("--name", "DEFAULT")
    return _sure(asked.sight.is_recent(name, asked.packet.source), f"recent {name}")


def _sure(answer: bool | None, what: str) -> bool:  # noqa: FBT001 - an answer, not a switch
    if answer is None:
        raise Unsure(what)
    return answer


def yes(_asked: Question) -> Answer:
    return True


ANSWERS: Mapping[str, Callable[[Question], Answer]] = {
    "-s": source,
    "-d": destination,
    "-i": came_in,
    "-o": goes_out,
    "-p": protocol,
    **dict.fromkeys(("--dport", "--dports", "--destination-port"), port),
    "--mark": mark,
    **dict.fromkeys(("--src-type", "--dst-type"), address_type),
    **dict.fromkeys(("--ctstate", "--state"), state),
    "--match-set": ip_set,
    **dict.fromkeys(("--update", "--rcheck"), recent),
    "--probability": lambda asked: float(asked.value),
    "--every": lambda asked: 1 / int(asked.value),
    # Its packet is the first of a connection, and whole.
    "-f": lambda _: False,
    # Details of the matches above; `--set` puts the source into a list, and always matches.
    **dict.fromkeys(("--mode", "--packet", "--seconds", "--name", "--mask", "--rsource", "--reap", "--set"), yes),
}
