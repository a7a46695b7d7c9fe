"""Notices when somebody else changes what is ours in nftables or iptables-nft, and asks for a look at it.

iptables-legacy tells nobody; there the resync finds it.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from controlloop.command import own_processes
from controlloop.logs import Log
from controlloop.nft.monitor import RulesetMonitor
from controlloop.nft.notifications import Change
from controlloop.repairs import RepairLimiter
from netagent.finding import Finding, fight, overflow
from netagent.firewall.desired import Mode, Policy, rules_name
from netagent.firewall.iptables import owned
from netagent.instance import Instance

log = Log("netagent.firewall")

GATHER_S = 0.02
"""One command often makes several transactions."""

HOOKS = ("", "POSTROUTING", "FORWARD")
"""Where our jumps stand; a table that is deleted takes them along."""


class Watch:
    def __init__(self, policy: Policy, wake: Callable[[], None]) -> None:
        """`wake` is called when a look is due; a writer who keeps undoing us is followed ever more slowly."""
        self._wake = wake
        concerns = concerns_table if policy.mode is Mode.NFTABLES else concerns_table_or_chains
        self._monitor = RulesetMonitor(partial(concerns, policy.instance), own_processes)
        self._monitor.start(self._heard)
        self._looks: RepairLimiter[None] = RepairLimiter()
        self._rules = rules_name(policy)
        self._writer = ""
        self._overflows = 0
        self._missed = False
        """The last thing heard was that more was said than we could read."""
        self._due: asyncio.TimerHandle | None = None
        self._look_is_due = False

    def take(self) -> bool:
        """Whether a look is due; whoever asks takes it."""
        taken, self._look_is_due = self._look_is_due, False
        return taken

    @property
    def is_held(self) -> bool:
        """Something was touched, and must not be looked at yet."""
        return self._due is not None and not self._missed and bool(self._looks.fights)

    def findings(self) -> list[Finding]:
        return [self._finding()] if self._looks.fights else []

    def _finding(self) -> Finding:
        return overflow(self._rules) if self._missed else fight(self._rules, self._writer)

    def close(self) -> None:
        if self._due:
            self._due.cancel()
        self._monitor.close()

    def _heard(self) -> None:
        if self._monitor.touched:
            self._monitor.touched = False
            self._writer = self._monitor.writer
            self._missed = self._monitor.overflows > self._overflows
            self._overflows = self._monitor.overflows
            self._look_in(GATHER_S)

    def _look_in(self, wait_s: float) -> None:
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(wait_s, self._look)

    def _look(self) -> None:
        self._due = None
        if wait_s := self._looks.wait_s(None):
            if self._looks.fights[None] == 1:
                log.warning("repairs held back", object=self._rules, reason=self._finding().reason)
            self._look_in(wait_s)
        else:
            self._look_is_due = True
            self._wake()


def concerns_table(instance: Instance, change: Change) -> bool:
    return change.table == instance.program


def concerns_table_or_chains(instance: Instance, change: Change) -> bool:
    if change.table not in {"nat", "filter"}:
        return concerns_table(instance, change)
    return owned(instance).is_ours(change.chain) or (change.is_removal and change.chain in HOOKS)
