"""Follows what other programs do to chains of ours through iptables-nft, which writes to nftables."""

from collections.abc import Callable, Container, Mapping

from controlloop.drift import Drift
from controlloop.family import Family
from controlloop.iptables.chains import Key, Owned, Rules
from controlloop.nft import notifications as said
from controlloop.nft.notifications import Change, Message
from controlloop.nft.watch import RulesetWatch

UNKNOWN: Rules = ("changed by somebody",)


class IptablesWatch(RulesetWatch[Key, Rules]):
    """Of the owned chains, and of our jumps in the others."""

    def __init__(
        self, family: Family, owned: Owned, desired: Callable[[], Mapping[Key, Rules]], own_ports: Container[int]
    ) -> None:
        super().__init__(family, own_ports)
        self._owned = owned
        self._desired = desired
        self._prefixes = [prefix.encode() for prefix in owned.prefixes]

    def take(self) -> Drift[Key, Rules]:
        """After a flush all our chains count as changed: they are written as fast as they are read."""
        drift = super().take()
        for key in self._desired() if drift.much else ():
            if self._owned.is_ours(key[1]):
                drift.actual[key] = UNKNOWN
            elif key[0] in self._owned.tables:
                drift.unread.add(key)
        return drift

    def _note(self, change: Change, message: Message) -> bool:
        if change.table not in self._owned.tables:
            return False
        if not change.chain:
            self._drift.everything |= change.is_removal
            return change.is_removal
        key = (change.table, change.chain)
        if self._owned.is_ours(change.chain):
            self._drift.note(key, None if message.kind == said.DELCHAIN else UNKNOWN)
            return True
        # What a rule was that is gone is not told: perhaps a jump of ours. One that came names the chain it jumps to.
        concerns = change.is_removal or self._names_ours(message)
        if concerns:
            self._drift.unread.add(key)
        return concerns

    def _names_ours(self, message: Message) -> bool:
        return any(prefix in message.payload for prefix in self._prefixes)
