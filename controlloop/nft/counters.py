"""What elements of a set counted, as the kernel sends it (linux/netfilter/nf_tables.h). Pure."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from controlloop.nft.elements import ELEMENT, ELEMENTS, KEY, data
from controlloop.nft.notifications import attributes, text

EXPRESSION, EXPRESSIONS = 7, 11  # NFTA_SET_ELEM_EXPR for one, NFTA_SET_ELEM_EXPRESSIONS for several
NAME, DATA = 1, 2  # NFTA_EXPR_NAME, NFTA_EXPR_DATA
BYTES, PACKETS = 1, 2  # NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS


class Count(NamedTuple):
    packets: int
    bytes: int


def counts(payload: bytes, key_type: str) -> Iterator[tuple[str, Count]]:
    """Key and count of each element of a message; elements without a counter are left out.

    UnknownTypeError for a type of key that cannot be put into words.
    """
    for kind, listed in attributes(payload):
        if kind == ELEMENTS:
            for _, element in attributes(listed):
                parts = dict(attributes(element))
                if KEY in parts and (count := count_of(parts)) is not None:
                    yield data(parts[KEY], key_type), count


def count_of(element: Mapping[int, bytes]) -> Count | None:
    several = (each for kind, each in attributes(element.get(EXPRESSIONS, b"")) if kind == ELEMENT)
    for expression in (element.get(EXPRESSION, b""), *several):
        said = dict(attributes(expression))
        if text(said.get(NAME, b"")) == "counter":
            numbers = dict(attributes(said.get(DATA, b"")))
            return Count(int.from_bytes(numbers.get(PACKETS, b"")), int.from_bytes(numbers.get(BYTES, b"")))
    return None
