"""What one statement of a rule does to a branch (libnftables-json(5)). Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, NamedTuple

from netctl.explain.nft_values import Values
from netctl.explain.walk import NoMatchError, Packet, Place, Unsure, Verdict

VERDICTS = {"accept": Verdict.ACCEPT, "drop": Verdict.DROP, "reject": Verdict.REJECT, "queue": Verdict.ACCEPT}
DECISIVE = frozenset({"drop", "reject", "dnat", "redirect", "snat", "masquerade", "tproxy", "queue", "vmap", "xt"})
"""`xt` is what iptables wrote and nft cannot read."""
COMMENT = {"type": "match", "name": "comment"}
"""That iptables writes; everything else of xt is closed to nft's JSON."""
MARK = {"meta": {"key": "mark"}}


class Way(NamedTuple):
    """Where one branch is after a statement."""

    share: float
    packet: Packet
    verdict: Verdict | None = None
    goes_to: str = ""
    """A chain."""
    returns: bool = False
    """Behind that chain, the rule's own chain goes on."""
    ends: bool = False
    """This chain is over."""
    breaks: bool = False
    """The rest of the rule is not for this branch."""

    @property
    def is_settled(self) -> bool:
        return bool(self.verdict or self.goes_to or self.ends or self.breaks)


Ways = list[Way]


def act(kind: str, inner: Any, way: Way, values: Values) -> Ways:
    """Unsure of statements that are not known; NoMatchError when the rule does not match."""
    if kind in VERDICTS:
        return verdict(kind, inner, way)
    if kind not in STATEMENTS and inner != COMMENT:
        raise Unsure(kind)
    if inner == COMMENT:
        return [way]
    return STATEMENTS[kind](inner, way, values)


def verdict(kind: str, inner: Any, way: Way) -> Ways:
    if isinstance(inner, dict) and inner.get("type") == "tcp reset" and way.packet.protocol != "tcp":
        # The listing leaves out the `meta l4proto tcp` that this implies.
        raise NoMatchError
    return [way._replace(verdict=VERDICTS[kind])]


def match(inner: Any, way: Way, values: Values) -> Ways:
    if not values.matches(inner):
        raise NoMatchError
    return [way]


def verdict_map(inner: Any, way: Way, values: Values) -> Ways:
    found = [(share, values.look_up(inner["data"], key)) for share, key in values.of(inner["key"])]
    if all(text is None for _, text in found):
        raise NoMatchError
    return [_by_element(text, way._replace(share=way.share * share)) for share, text in found]


def _by_element(found: Any, way: Way) -> Way:
    """The value of a map of verdicts: text of an element, or JSON in a rule; None: there is none."""
    if found is None:
        return way._replace(breaks=True)
    if isinstance(found, dict):
        ((kind, inner),) = found.items()
        target = inner["target"] if inner else ""
    else:
        kind, _, target = str(found).partition(" ")
    if target:
        return way._replace(goes_to=target, returns=kind == "jump")
    return way._replace(verdict=VERDICTS.get(kind), ends=kind == "return")


def dnat(inner: Any, way: Way, values: Values) -> Ways:
    found = values.of(inner.get("addr", str(way.packet.to.address)))
    if all(text is None for _, text in found):
        raise NoMatchError
    return [_translated(inner, text, way._replace(share=way.share * share)) for share, text in found]


def _translated(inner: Mapping[str, Any], text: Any, way: Way) -> Way:
    if text is None:
        return way._replace(breaks=True)
    address, _, port = str(text).partition(" . ")
    to = Place(ip_address(address), int(port or inner.get("port", way.packet.to.port)))
    return way._replace(packet=way.packet.translated(to), verdict=Verdict.ACCEPT)


def masquerade(_inner: Any, way: Way, _values: Values) -> Ways:
    return [way._replace(packet=replace(way.packet, masqueraded=True), verdict=Verdict.ACCEPT)]


def mangle(inner: Any, way: Way, values: Values) -> Ways:
    if inner["key"] != MARK:
        return [way]
    ((_, mark),) = values.of(inner["value"])
    return [way._replace(packet=replace(way.packet, mark=mark))]


def remember(inner: Any, way: Way, values: Values) -> Ways:
    """Only what is remembered of the source is asked again on the way."""
    if not is_of_source(inner):
        return [way]
    if inner["op"] not in ("add", "update"):
        raise Unsure("a set that forgets")
    name = values.full_name(inner["set"])
    return [way._replace(packet=replace(way.packet, member_of=way.packet.member_of | {name}))]


def is_of_source(inner: Mapping[str, Any]) -> bool:
    element = inner["elem"]
    while isinstance(element, dict) and "elem" in element:
        element = element["elem"]
    value = element.get("val", element) if isinstance(element, dict) else element
    return isinstance(value, dict) and value.get("payload", {}).get("field") == "saddr"


def jump(inner: Any, way: Way, _values: Values) -> Ways:
    return [way._replace(goes_to=inner["target"], returns=True)]


def goto(inner: Any, way: Way, _values: Values) -> Ways:
    return [way._replace(goes_to=inner["target"])]


def end(_inner: Any, way: Way, _values: Values) -> Ways:
    return [way._replace(ends=True)]


def nothing(_inner: Any, way: Way, _values: Values) -> Ways:
    return [way]


STATEMENTS: Mapping[str, Callable[[Any, Way, Values], Ways]] = {
    "match": match,
    "vmap": verdict_map,
    "dnat": dnat,
    "snat": masquerade,
    "masquerade": masquerade,
    "mangle": mangle,
    "set": remember,
    "jump": jump,
    "goto": goto,
    "return": end,
    **dict.fromkeys(("continue", "counter", "log", "notrack", "flow", "quota"), nothing),
}


def told(kind: str, inner: Any, ways: Ways) -> Iterator[str]:
    """What it did, for who reads."""
    match kind:
        case "vmap":
            yield from sorted({_told_way(way) for way in ways if not way.breaks})
        case "dnat":
            ends = sorted({str(way.packet.to) for way in ways if not way.breaks})
            yield f"dnat to {ends[0]}" if len(ends) == 1 else f"dnat to one of {len(ends)} endpoints"
        case "mangle" if inner["key"] == MARK:
            yield f"mark {ways[0].packet.mark:#x}"
        case "jump" | "goto":
            yield f"{kind} {inner['target']}"
        case "set" if is_of_source(inner):
            yield "remember the source"
        case _ if kind in DECISIVE | VERDICTS.keys():
            yield kind


def _told_way(way: Way) -> str:
    if way.goes_to:
        return f"{'jump' if way.returns else 'goto'} {way.goes_to}"
    return way.verdict.value if way.verdict else "return"
