"""Answers that stand within a wider one: a single frontend in the list of all, one chain's table in the ruleset. Pure.

A live node is asked for what is needed, which is quicker; a bundle has everything once.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]
Pick = Callable[[Entry], bool]

EVERY_FRONTEND = "/frontends"
FLAGS = {"-j": "json", "--json": "json", "-t": "terse", "--terse": "terse"}
COUNTERS = "--counters"
COUNTED = re.compile(rb"^\[\d+:\d+\] ", re.MULTILINE)
CONTAINERS = ("set", "map")


def frontend_picker(page: str) -> Pick | None:
    """Which of all frontends are on this page; None: it is another page."""
    folder, _, rest = page.removeprefix("/").partition("/")
    if folder == "frontends-of":
        return lambda item: item["service"].partition(":")[0] == rest
    if folder == "frontends" and rest.count("/") == 2:
        address, protocol, port = rest.split("/")
        return lambda item: (item["address"], item["protocol"], str(item["port"])) == (address, protocol, port)
    return None


def with_counters(argv: Sequence[str]) -> tuple[str, ...]:
    """The question to iptables-save in whose answer this one stands; empty: there is none."""
    is_plain = len(argv) == 1 and argv[0].endswith(("tables-nft-save", "tables-legacy-save"))
    return (*argv, COUNTERS) if is_plain else ()


def without_counters(saved: bytes) -> bytes:
    return COUNTED.sub(b"", saved)


def is_of_nft(argv: Sequence[str]) -> bool:
    """Whether it is a listing of nft in JSON."""
    return argv[:1] == ("nft",) and "json" in map(FLAGS.get, argv) and "list" in argv


def nft_listing(argv: Sequence[str], entries: Iterable[Entry]) -> list[Entry]:
    """What `nft --json list ...` prints, from the entries of all tables. KeyError when there is no such object."""
    words = [word for word in argv[1:] if word not in FLAGS][1:]
    found = list(chosen(words, entries))
    if not found and words[0] in ("table", *CONTAINERS):
        raise KeyError(" ".join(words))
    return [without_elements(entry) for entry in found] if "terse" in map(FLAGS.get, argv) else found


def chosen(words: Sequence[str], entries: Iterable[Entry]) -> Iterator[Entry]:
    match words:
        case ["ruleset", *family] | ["tables" | "chains", *family]:
            kinds = {"tables": ("table",), "chains": ("chain",)}.get(words[0])
            yield from (entry for entry in entries if is_of(entry, kinds, *family))
        case ["table", family, name]:
            yield from (entry for entry in entries if table_of(entry) == (family, name))
        case ["set" | "map" as kind, family, table, name]:
            yield from (
                entry
                for entry in entries
                if table_of(entry) == (family, table) and any(kind == k and i["name"] == name for k, i in entry.items())
            )
        case _:
            raise KeyError(" ".join(words))


def is_of(entry: Entry, kinds: Sequence[str] | None, family: str = "") -> bool:
    return any((kinds is None or kind in kinds) and family in ("", item["family"]) for kind, item in entry.items())


def table_of(entry: Entry) -> tuple[str, str]:
    ((kind, item),) = entry.items()
    return item["family"], item["name"] if kind == "table" else item["table"]


def without_elements(entry: Entry) -> Entry:
    return {kind: {name: part for name, part in item.items() if name != "elem"} for kind, item in entry.items()}
