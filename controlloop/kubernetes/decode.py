"""Answers of the API server as values. Pure.

An object is decoded straight from its bytes into the struct that the caller gives: what the struct does not name, the
managedFields above all, is skipped over and never becomes an object in memory. An object that does not fit the struct
is named and left out; the others are not harmed. `bytes` in place of a struct stands for the object's text without its
managedFields.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import msgspec

from controlloop.errors import CompactedError, UnavailableError
from controlloop.kubernetes.answers import refusal

T = TypeVar("T")

BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for text that is cut, is no text, is nested without end, or is not what was asked for."""


@dataclass(frozen=True, slots=True)
class Name:
    namespace: str
    """Empty for kinds that have none."""
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Put(Generic[T]):
    """An object as it is since `revision`."""

    revision: str
    name: Name
    content: T


@dataclass(frozen=True, slots=True)
class Removed:
    revision: str
    name: Name


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An object that does not fit the struct."""

    revision: str
    name: Name
    reason: str


@dataclass(frozen=True, slots=True)
class Moved:
    """Nothing happened up to and with `revision` (a bookmark)."""

    revision: str


Change = Put[T] | Removed | Unreadable | Moved


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """All objects of a collection at one revision."""

    revision: str
    objects: tuple[Put[T], ...]
    unreadable: tuple[Unreadable, ...]


class _Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Head(msgspec.Struct):
    metadata: _Metadata


class _ListMetadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: _ListMetadata
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct):
    code: int = 0
    message: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    listing: Listing[T]
    proceed: str
    """What to ask the next page with; empty on the last one."""

    @property
    def revision(self) -> str:
        return self.listing.revision


def parse_object(raw: bytes | msgspec.Raw, shape: type[T]) -> Put[T] | Unreadable:
    """UnavailableError when it is no object at all: the answer was cut or is not from an API server."""
    try:
        head = msgspec.json.decode(raw, type=_Head).metadata
    except BROKEN as error:
        raise UnavailableError(f"the API server's answer is no object: {error}") from error
    name = Name(head.namespace, head.name)
    try:
        return Put(head.resource_version, name, _content(raw, shape))
    except BROKEN as error:
        return Unreadable(head.resource_version, name, str(error))


def _content(raw: bytes | msgspec.Raw, shape: type[T]) -> T:
    if shape is not bytes:
        return msgspec.json.decode(raw, type=shape)
    document = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    metadata = msgspec.json.decode(document["metadata"], type=dict[str, msgspec.Raw])
    metadata.pop("managedFields", None)
    document["metadata"] = msgspec.Raw(msgspec.json.encode(metadata))
    return cast("T", msgspec.json.encode(document))


def parse_page(raw: bytes, shape: type[T]) -> Page[T]:
    """UnavailableError when the answer is cut or is no list."""
    try:
        page = msgspec.json.decode(raw, type=_List)
    except BROKEN as error:
        raise UnavailableError(f"the API server's answer is no list: {error}") from error
    found = [parse_object(item, shape) for item in page.items or ()]
    objects = tuple(one for one in found if isinstance(one, Put))
    unreadable = tuple(one for one in found if isinstance(one, Unreadable))
    return Page(Listing(page.metadata.resource_version, objects, unreadable), page.metadata.continue_)


def together(parts: Sequence[Listing[T]]) -> Listing[T]:
    """Pages as the listing they are pages of."""
    objects = tuple(one for part in parts for one in part.objects)
    unreadable = tuple(one for part in parts for one in part.unreadable)
    return Listing(parts[-1].revision, objects, unreadable)


def parse_event(line: bytes, shape: type[T], verb: str) -> Change[T]:
    """One line of a watch. An ERROR event is raised as what it means (`answers.refusal`)."""
    try:
        event = msgspec.json.decode(line, type=_Event)
    except BROKEN as error:
        raise UnavailableError(f"{verb}: no event: {error}") from error
    if event.type == "ERROR":
        raise refusal(verb, *_status(event.object))
    if event.type == "BOOKMARK":
        return Moved(_head(event.object, verb).resource_version)
    if event.type == "DELETED":
        head = _head(event.object, verb)
        return Removed(head.resource_version, Name(head.namespace, head.name))
    return parse_object(event.object, shape)


def went_back(before: str, now: str) -> bool:
    """Whether a revision is older than one we have seen: the store was restored. They are numbers since etcd is."""
    return before.isdigit() and now.isdigit() and int(now) < int(before)


def refuse_going_back(verb: str, before: str, now: str) -> None:
    if went_back(before, now):
        raise CompactedError(f"{verb}: the store went back from revision {before} to {now}")


def status_of(raw: bytes) -> str:
    """The message of a refusal; the first line of the text when it comes from something in between."""
    try:
        status = msgspec.json.decode(raw, type=_Status)
    except BROKEN:
        return raw.decode(errors="replace").strip().partition("\n")[0][:200]
    return status.message or status.reason


def _head(raw: msgspec.Raw, verb: str) -> _Metadata:
    try:
        return msgspec.json.decode(raw, type=_Head).metadata
    except BROKEN as error:
        raise UnavailableError(f"{verb}: no event: {error}") from error


def _status(raw: msgspec.Raw) -> tuple[int, str]:
    try:
        status = msgspec.json.decode(raw, type=_Status)
    except BROKEN as error:
        return 0, f"an error event that cannot be read: {error}"
    return status.code, status.message or status.reason
