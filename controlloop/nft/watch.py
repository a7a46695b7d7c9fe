"""Follows what other programs do to objects of ours in nftables, so that a repair costs what was broken."""

from abc import abstractmethod
from collections.abc import Callable, Container, Hashable, Mapping
from typing import Generic, TypeVar

from controlloop.drift import Drift
from controlloop.family import Family
from controlloop.nft import notifications as said
from controlloop.nft.elements import elements
from controlloop.nft.monitor import NftablesSocket
from controlloop.nft.notifications import Change, Message, attributes, change_of, messages, text
from controlloop.nft.state import Chain, Key, Rule, Value
from controlloop.nft.state import Container as SetOrMap

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

BUFFER_BYTES = 8 * 1024 * 1024
"""A transaction of our own with 10,000 services is heard, too."""

UNKNOWN = Rule("changed by somebody")
SET_NAME = 2  # NFTA_SET_ELEM_LIST_SET


class RulesetWatch(NftablesSocket, Generic[K, V]):
    """Gathers drift in one family. Our own writers are known by their netlink ports, and passed over."""

    def __init__(self, family: Family, own_ports: Container[int]) -> None:
        super().__init__(BUFFER_BYTES)
        self._family = family
        self._own_ports = own_ports
        self._drift: Drift[K, V] = Drift()
        self._concerned = False
        self._wake: Callable[[], None] = lambda: None

    def start(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        super().start(self._heard)

    def take(self) -> Drift[K, V]:
        """All that drifted since the last time."""
        self.drain()
        taken, self._drift = self._drift, Drift()
        return taken

    @abstractmethod
    def _note(self, change: Change, message: Message) -> bool:
        """Note what this says about objects of ours; gives back whether it does."""

    def _heard(self) -> None:
        if self._drift:
            self._wake()

    def _lost(self) -> None:
        self._drift.everything = True

    def _take(self, datagram: bytes) -> None:
        for message in messages(datagram):
            if message.port in self._own_ports:
                continue
            if message.kind == said.NEWGEN:
                self._end_of_transaction(message)
            elif message.family == self._family.af and message.kind in said.OBJECTS:
                self._concerned |= self._note(change_of(message), message)

    def _end_of_transaction(self, message: Message) -> None:
        if self._concerned:
            self._drift.by = text(dict(attributes(message.payload)).get(said.PROCESS_NAME, b""))
        self._concerned = False


class NftWatch(RulesetWatch[Key, Value]):
    """Of one table that is ours alone."""

    def __init__(
        self, family: Family, table: str, desired: Callable[[], Mapping[Key, Value]], own_ports: Container[int]
    ) -> None:
        super().__init__(family, own_ports)
        self._table = table
        self._desired = desired

    def _note(self, change: Change, message: Message) -> bool:
        if change.table != self._table:
            return False
        match message.kind:
            case said.NEWSETELEM | said.DELSETELEM:
                self._elements(message, gone=change.is_removal)
            case said.NEWRULE | said.DELRULE | said.NEWCHAIN | said.DELCHAIN:
                self._chain(change.chain, gone=message.kind == said.DELCHAIN)
            case _:
                # A table, set or map: only a look at everything finds what went with it.
                self._drift.everything = True
        return True

    def _chain(self, name: str, *, gone: bool) -> None:
        key = Key("chain", name)
        wanted = self._desired().get(key)
        hook = wanted.hook if isinstance(wanted, Chain) else None
        if gone and hook:
            self._drift.everything = True
        self._drift.note(key, None if gone else Chain(hook, (UNKNOWN,)))

    def _elements(self, message: Message, *, gone: bool) -> None:
        name = text(dict(attributes(message.payload)).get(SET_NAME, b""))
        container = self._desired().get(Key("container", name))
        if not isinstance(container, SetOrMap):
            self._drift.everything = True
            return
        if container.is_dynamic:
            return
        try:
            for key, value in elements(message.payload, container.type):
                self._drift.note(Key("element", name, key), None if gone else value)
        except ValueError:
            self._drift.everything = True
