"""YAML text to plain values, for text that nobody vouches for.

Built from libyaml's events. PyYAML's own loaders recurse in C without a limit, so a file of brackets ends the process;
they let aliases and merge keys multiply to any size, and answer odd tags with any exception. Scalars follow YAML 1.2
(`no` is a word, a date is text), which is also what keeps a value the way the operator wrote it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

Value = bool | int | float | str | list[Any] | dict[str, Any] | None

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_DEPTH = 64
GROWTH = 10
FREE_SIZE = 1_000_000
"""Aliases may make a file this many times, or for a small one up to this many characters, larger."""

WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
DECIMAL = re.compile(r"[-+]?(\.[0-9]{1,300}|[0-9]{1,300}(\.[0-9]{0,300})?)([eE][-+]?[0-9]{1,3})?")

TEXT_TAGS = ("!", "tag:yaml.org,2002:str")
PLAIN_TAGS = (None, *(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float")))


class YamlError(ValueError):
    """The text is no YAML that we read. One line, with the line number where there is one."""


def documents(text: bytes) -> Iterator[Value]:
    """The documents of a stream, one at a time, so that a long stream is never in memory whole. YamlError."""
    composer = Composer(limit=max(GROWTH * len(text), FREE_SIZE))
    try:
        for event in yaml.parse(text, Loader=LOADER):
            composer.take(event)
            if isinstance(event, yaml.DocumentEndEvent):
                yield composer.root()
    except yaml.MarkedYAMLError as error:
        raise YamlError(f"{_line(error.problem_mark)}{error.problem}") from error
    except yaml.YAMLError as error:
        raise YamlError(" ".join(str(error).split())) from error


def _line(mark: Any) -> str:
    return f"line {mark.line + 1}: " if mark is not None else ""


@dataclass(slots=True)
class Collection:
    """A sequence, or a mapping as its keys and values in turn, whose end has not come yet."""

    is_mapping: bool
    anchor: str | None
    size_before: int
    values: list[Value] = field(default_factory=list)

    @property
    def awaits_key(self) -> bool:
        return self.is_mapping and len(self.values) % 2 == 0


class Composer:
    """Values from events. `limit` bounds the size of a document with each alias written out."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._anchors: dict[str, tuple[Value, int]] = {}
        self._open = [Collection(is_mapping=False, anchor=None, size_before=0)]

    def root(self) -> Value:
        """The document that has just ended; the composer is ready for the next one."""
        value = self._open[0].values.pop()
        self._anchors.clear()
        self._size = 0
        return value

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._take_scalar(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._enter(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._leave(event)
        elif isinstance(event, yaml.AliasEvent):
            self._take_alias(event)

    def _take_scalar(self, event: yaml.ScalarEvent) -> None:
        inner = self._open[-1]
        # A key is text however it looks: JSON knows no other.
        value: Value = event.value if inner.awaits_key else _scalar(event)
        self._size += 1 + len(event.value)
        inner.values.append(value)
        if event.anchor:
            self._anchors[event.anchor] = (value, 1 + len(event.value))

    def _enter(self, event: yaml.CollectionStartEvent) -> None:
        if len(self._open) > MAX_DEPTH:
            raise YamlError(f"{_line(event.start_mark)}nested deeper than {MAX_DEPTH}")
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        self._open.append(Collection(is_mapping, event.anchor, self._size))
        self._size += 1

    def _leave(self, event: yaml.CollectionEndEvent) -> None:
        collection = self._open.pop()
        value = _mapping(collection.values, event) if collection.is_mapping else collection.values
        self._open[-1].values.append(value)
        if collection.anchor:
            self._anchors[collection.anchor] = (value, self._size - collection.size_before)

    def _take_alias(self, event: yaml.AliasEvent) -> None:
        if event.anchor not in self._anchors:
            raise YamlError(f"{_line(event.start_mark)}nothing named {event.anchor} stands before its alias")
        value, size = self._anchors[event.anchor]
        self._size += size
        if self._size > self._limit:
            raise YamlError(f"{_line(event.start_mark)}aliases make it larger than {self._limit} characters")
        self._open[-1].values.append(value)


def _mapping(values: list[Value], event: yaml.CollectionEndEvent) -> dict[str, Value]:
    mapping: dict[str, Value] = {}
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not isinstance(key, str) or key == "<<":
            raise YamlError(f"{_line(event.start_mark)}keys are text, and merge keys (<<) are not read")
        mapping[key] = value
    return mapping


def _scalar(event: yaml.ScalarEvent) -> Value:
    if event.tag in TEXT_TAGS or (event.tag is None and not event.implicit[0]):
        return str(event.value)
    if event.tag not in PLAIN_TAGS:
        raise YamlError(f"{_line(event.start_mark)}tag {event.tag} is not read")
    return plain(event.value)


def plain(text: str) -> Value:
    """An unquoted scalar, by the core schema of YAML 1.2."""
    if text in WORDS:
        return WORDS[text]
    if text[0] not in "-+.0123456789":
        return text
    if INTEGER.fullmatch(text):
        return int(text)
    return float(text) if DECIMAL.fullmatch(text) else text
