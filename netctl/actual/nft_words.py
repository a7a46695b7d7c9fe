"""nft's JSON (libnftables-json(5)) in nft's words, for people and for comparing. Pure.

Keys and values of elements come out exactly as controlloop.nft.elements puts them; rules come close to what nft prints.
What is not known here stays JSON.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

OPERATORS = {"==": "", "in": ""}
"""That nft leaves out."""


def rule_text(expression: Any) -> str:
    return " ".join(statement_text(*each) for statement in expression for each in statement.items())


def statement_text(kind: str, inner: Any) -> str:
    if inner is None:
        return kind
    writer = STATEMENTS.get(kind) or EXPRESSIONS.get(kind)
    return writer(inner) if writer else f"{kind} {json.dumps(inner)}"


def words(value: Any) -> str:
    """A key, a value or an operand."""
    if isinstance(value, list):
        return ",".join(map(words, value))
    if not isinstance(value, dict):
        return value if isinstance(value, str) else json.dumps(value)
    ((kind, inner), *_) = value.items()
    if inner is None:
        return str(kind)
    writer = EXPRESSIONS.get(kind)
    return writer(inner) if writer else json.dumps(value)


def match(inner: Any) -> str:
    operator = OPERATORS.get(inner["op"], f"{inner['op']} ")
    return f"{words(inner['left'])} {operator}{words(inner['right'])}"


def payload(inner: Any) -> str:
    if "field" in inner:
        return f"{inner['protocol']} {inner['field']}"
    return f"@{inner['base']},{inner['offset']},{inner['len']}"


def meta(inner: Any) -> str:
    return str(inner["key"]) if inner["key"] in ("iifname", "oifname") else f"meta {inner['key']}"


def conntrack(inner: Any) -> str:
    return " ".join(filter(None, ("ct", inner.get("dir"), inner.get("family"), inner["key"])))


def with_bits(operator: str) -> Callable[[Any], str]:
    """Marks are read bit by bit."""
    return lambda inner: f" {operator} ".join(f"{each:#x}" if isinstance(each, int) else words(each) for each in inner)


def drawn(inner: Any) -> str:
    return f"numgen {inner['mode']} mod {inner['mod']}" + (f" offset {inner['offset']}" if inner.get("offset") else "")


def hashed(inner: Any) -> str:
    seed = f" seed {inner['seed']:#x}" if "seed" in inner else ""
    return f"jhash {words(inner['expr'])} mod {inner['mod']}{seed}"


def rewritten(inner: Any) -> str:
    return f"{words(inner['key'])} set {words(inner['value'])}"


def translated(inner: Any) -> str:
    family = f" {inner['family']}" if "family" in inner else ""
    port = f":{words(inner['port'])}" if "port" in inner else ""
    return f"dnat{family} to {words(inner['addr'])}{port}"


def refused(inner: Any) -> str:
    return " ".join(filter(None, ("reject with", inner["type"], inner.get("expr"))))


def remembered(inner: Any) -> str:
    return f"{inner['op']} {inner['set']} {{ {words(inner['elem'])} }}"


def member(inner: Any) -> str:
    """Of a set or map that stands in a rule."""
    return " : ".join(map(words, inner)) if isinstance(inner, list) else words(inner)


def element(inner: Any) -> str:
    return words(inner["val"]) + (f" timeout {inner['timeout']}s" if "timeout" in inner else "")


EXPRESSIONS: Mapping[str, Callable[[Any], str]] = {
    "concat": lambda inner: " . ".join(map(words, inner)),
    "elem": element,
    "goto": lambda inner: f"goto {inner['target']}",
    "jump": lambda inner: f"jump {inner['target']}",
    "payload": payload,
    "meta": meta,
    "ct": conntrack,
    "fib": lambda inner: f"fib {words(inner['flags'])} {inner['result']}",
    "prefix": lambda inner: f"{words(inner['addr'])}/{inner['len']}",
    "range": lambda inner: "-".join(map(words, inner)),
    "set": lambda inner: f"{{ {', '.join(map(member, inner))} }}",
    "map": lambda inner: f"{words(inner['key'])} map {words(inner['data'])}",
    "numgen": drawn,
    "jhash": hashed,
    "&": with_bits("&"),
    "|": with_bits("|"),
    "^": with_bits("^"),
}
STATEMENTS: Mapping[str, Callable[[Any], str]] = {
    "match": match,
    "counter": lambda _: "counter",
    "vmap": lambda inner: f"{words(inner['key'])} vmap {words(inner['data'])}",
    "mangle": rewritten,
    "dnat": translated,
    "masquerade": lambda inner: f"masquerade {words(inner.get('flags', ''))}".rstrip(),
    "reject": refused,
    "set": remembered,
}
