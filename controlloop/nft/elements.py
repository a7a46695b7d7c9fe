"""Elements of sets and maps as the kernel sends them, in the words of a listing. Pure.

Every field of a concatenation is padded to four bytes (linux/netfilter/nf_tables.h, NFT_REG32_SIZE).
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from itertools import accumulate, pairwise
from struct import Struct
from sys import byteorder

from controlloop.address import host
from controlloop.family import Family
from controlloop.nft.notifications import TYPE_MASK, attributes, text

ELEMENTS, ELEMENT = 3, 1  # NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_LIST_ELEM
KEY, DATA = 1, 2  # NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA
VALUE, VERDICT = 1, 2  # NFTA_DATA_VALUE, NFTA_DATA_VERDICT
VERDICT_CODE, VERDICT_CHAIN = 1, 2
VERDICTS = {0: "drop", 1: "accept", -1: "continue", -3: "jump", -4: "goto", -5: "return"}

PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp", 132: "sctp"}
LARGEST_INDEX = 65536
HEADERS = 12
"""Of an element, its key and the key's value, in front of the key's bytes."""
ELEMENT_HEADER = 4
KEY_KIND = slice(6, 8)
"""Where an element says that a key comes first."""
ALL_OTHERS = "*"
"""The key of an element that stands for whatever no other has (Linux 5.13); the kernel sends none."""
SIZES = {"ipv4_addr": 4, "ipv6_addr": 16, "inet_proto": 4, "inet_service": 4, "integer": 4, "mark": 4}


class UnknownTypeError(ValueError):
    """A type of element that this file cannot put into words."""


def elements(payload: bytes, container_type: str) -> Iterator[tuple[str, str]]:
    """Key and value of each element in a message; the value of a set's is empty.

    `container_type` is as listed: `ipv4_addr . inet_service : verdict`. UnknownTypeError for one that is not read here.
    """
    key_type, _, value_type = container_type.partition(" : ")
    for kind, listed in attributes(payload):
        if kind == ELEMENTS:
            for _, element in attributes(listed):
                parts = dict(attributes(element))
                value = data(parts.get(DATA, b""), value_type) if value_type else ""
                yield data(parts[KEY], key_type) if KEY in parts else ALL_OTHERS, value


def many_elements(payload: bytes, container_type: str) -> Iterator[tuple[str, str]]:
    """The same for a message with many: they are laid out alike, so each is taken apart at one blow."""
    key_type, _, value_type = container_type.partition(" : ")
    key_size = sum(size for _, size in layout_sizes(key_type))
    show, values = printer(key_type), _Values(value_type)
    for kind, listed in attributes(payload):
        at = 0
        while kind == ELEMENTS and at + HEADERS <= len(listed):
            end = at + (int.from_bytes(listed[at : at + 2], byteorder) or len(listed))
            if int.from_bytes(listed[at:end][KEY_KIND], byteorder) & TYPE_MASK == KEY:
                key_end = at + HEADERS + key_size
                yield show(listed[at + HEADERS : key_end]), values[listed[key_end:end]] if value_type else ""
            else:
                yield ALL_OTHERS, values[listed[at + ELEMENT_HEADER : end]] if value_type else ""
            at = end + 3 & ~3


class _Values(dict[bytes, str]):
    """Texts of values by the attribute that holds one: many elements have the same."""

    def __init__(self, value_type: str) -> None:
        super().__init__()
        self._type = value_type

    def __missing__(self, raw: bytes) -> str:
        self[raw] = text = data(dict(attributes(raw)).get(DATA, b""), self._type)
        return text


def data(attribute: bytes, type_text: str) -> str:
    parts = dict(attributes(attribute))
    if VERDICT in parts:
        return verdict(parts[VERDICT])
    return words(parts.get(VALUE, b""), type_text)


def verdict(attribute: bytes) -> str:
    parts = dict(attributes(attribute))
    code = int.from_bytes(parts.get(VERDICT_CODE, b""), "big", signed=True)
    if code not in VERDICTS:
        raise UnknownTypeError(f"verdict {code}")
    chain = text(parts.get(VERDICT_CHAIN, b""))
    return f"{VERDICTS[code]} {chain}".rstrip()


def words(value: bytes, type_text: str) -> str:
    return " . ".join([word(field, value[start:end]) for field, start, end in layout(type_text)])


def layout_sizes(type_text: str) -> list[tuple[str, int]]:
    fields = type_text.split(" . ")
    if not all(field in SIZES for field in fields):
        raise UnknownTypeError(type_text)
    return [(field, SIZES[field]) for field in fields]


@cache
def layout(type_text: str) -> tuple[tuple[str, int, int], ...]:
    """Each field of a concatenation with its place."""
    sizes = layout_sizes(type_text)
    ends = [0, *accumulate(size for _, size in sizes)]
    return tuple((field, start, end) for (field, _), (start, end) in zip(sizes, pairwise(ends), strict=True))


@cache
def printer(type_text: str) -> Callable[[bytes], str]:
    """Does what `words` does, for types without IPv6 addresses in a tenth of the time."""
    fields = [field for field, _ in layout_sizes(type_text)]
    if "ipv6_addr" in fields:
        return partial(words, type_text=type_text)
    unpack = Struct(">" + "".join(PACKED[field] for field in fields)).unpack
    form = " . ".join("%d.%d.%d.%d" if field == "ipv4_addr" else "%s" for field in fields)
    # Each IPv4 address is four numbers.
    places = accumulate((4 if field == "ipv4_addr" else 1 for field in fields), initial=0)
    rewritten = [(place, REWRITTEN[field]) for place, field in zip(places, fields, strict=False) if field in REWRITTEN]

    def show(value: bytes) -> str:
        numbers = list(unpack(value))
        for place, rewrite in rewritten:
            numbers[place] = rewrite(numbers[place])
        return form % tuple(numbers)

    return show


def word(field: str, value: bytes) -> str:
    if len(value) < SIZES[field] and not (field == "inet_service" and len(value) == 2):
        raise UnknownTypeError(f"{field} of {len(value)} bytes")
    match field:
        case "ipv4_addr":
            return ".".join(map(str, value))
        case "ipv6_addr":
            return host(Family.V6, int.from_bytes(value))
        case "inet_proto":
            return PROTOCOLS.get(value[0], str(value[0]))
        case "inet_service":
            return str(int.from_bytes(value[:2], "big"))
        case _:
            return str(number(value))


def number(value: bytes) -> int:
    return index(int.from_bytes(value, "big"))


def index(number: int) -> int:
    """An index has no byte order of its own, and nft has changed its mind about which to use: it is below 65,536."""
    return number if number < LARGEST_INDEX else int.from_bytes(number.to_bytes(4, "little"), "big")


PACKED = {"ipv4_addr": "4B", "inet_proto": "B3x", "inet_service": "H2x", "integer": "I", "mark": "I"}
"""How struct reads each, in network order."""
REWRITTEN: Mapping[str, Callable[[int], object]] = {
    "inet_proto": lambda number: PROTOCOLS.get(number, number),
    "integer": index,
    "mark": index,
}
"""What is not shown as the number that it is."""
