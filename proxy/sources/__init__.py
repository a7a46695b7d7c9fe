"""The seam between the proxy and where its objects come from.

Pure: the words that sources and the tracker share. `kubernetes`, `etcd` and `files` are the sources; one contract
suite holds all of them.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from controlloop.errors import Skipped
from proxy.objects import Kind, ObjectName


class Update(Struct, frozen=True, gc=False):
    """What one object is now."""

    kind: Kind
    name: ObjectName
    body: bytes | None
    """JSON, unchecked; None: deleted."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes that belong together, in the order they happened."""

    updates: tuple[Update, ...]
    listed: bool
    """This is all the source has: an object that is not in it is gone."""
    skipped: tuple[Skipped, ...] = ()
    """All that the source itself cannot read now; replaces what an earlier batch said."""
    complete: bool = True
    """False: parts of the first listing are still to come. Until then nothing may be written: an object that is missing
    may be there.
    """


class Source(Protocol):
    @property
    def away(self) -> str:
        """Why nothing new can be heard at the moment; empty when it can."""
        ...

    def batches(self) -> AsyncGenerator[Batch, None]:
        """Batches for ever: what there is, whole or in parts, then what changes. A source that is away is waited for;
        OperatorError when it can never come.
        """
        ...
