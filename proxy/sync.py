"""Keeps the rules of one family in line with the frontends, whatever the kernel or another program does.

- What was planned goes in at once, as one transaction, without a look at what exists.
- What another program changes is told by a watch, object by object, and goes back in the same way.
- When more drifted than is known, and now and then, an audit reads everything back. Nobody waits for it: what changes
  meanwhile is left out of the comparison, and what differs is repaired like any other drift.
- A transaction that the kernel refuses is taken apart until the Services are found that it is refused for.

Whoever calls `sync` is the only writer; `audit` only reads.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from controlloop.command import NOT_INSTALLED, CommandError
from controlloop.delta import Delta, diff
from controlloop.drift import MOST, Drift, Watch
from controlloop.history import History, Repair
from controlloop.logs import Log
from controlloop.reconcile import describe
from controlloop.repairs import BURST, RepairLimiter
from controlloop.rule_words import object_name, value_facts
from proxy.backend import Planner, RuleBackend
from proxy.frontends import Frontend, ServiceName
from proxy.head_start import HeadStart
from proxy.node import Surroundings
from proxy.quarantine import culprits

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Frontends = tuple[Frontend, ...]

log = Log("sync")


@dataclass(slots=True)
class RuleStats:
    """What `netctl status` shows of one family's rules."""

    syncs: int = 0
    failures: int = 0
    audits: int = 0
    repairs: Counter[str] = field(default_factory=Counter)
    """Objects that another program changed, and that were put right, by kind."""
    repaired: int = 0
    """All kinds together."""
    quarantines: int = 0
    """Services that were ever refused by the kernel, each time it refused one."""
    last_sync: float = 0.0
    """Unix time of the last sync that succeeded; 0: never."""
    last_duration_s: float = 0.0
    last_was_full: bool = False


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A Service that the kernel refuses."""

    frontends: Frontends
    reason: str


@dataclass(slots=True)
class _Services:
    """Which version of each Service stands in the plan."""

    good: dict[ServiceName, Frontends] = field(default_factory=dict)
    """What the kernel has."""
    suspects: dict[ServiceName, Frontends] = field(default_factory=dict)
    """What was planned since the last write that succeeded."""

    def written(self) -> Mapping[ServiceName, Frontends]:
        """The kernel has all that are still suspects: note it, and give them back."""
        written, self.suspects = self.suspects, {}
        for service, frontends in written.items():
            if frontends:
                self.good[service] = frontends
            else:
                self.good.pop(service, None)
        return written


class RuleSync(Generic[K, V]):
    def __init__(
        self, name: str, planner: Planner[K, V], backend: RuleBackend[K, V], wake: Callable[[], None] = lambda: None
    ) -> None:
        """`wake` is called when `sync` has something to do that nobody planned."""
        self.name = name
        self.stats = RuleStats()
        self.quarantined: dict[ServiceName, Quarantined] = {}
        """Their last good version stays."""
        self.audit_due = asyncio.Event()
        self.history = History()
        self._planner = planner
        self._backend = backend
        self._wake = wake
        self._pending: Delta[K, V] = Delta()
        self._services = _Services()
        self._unknown = True
        """Whether the kernel may hold anything: before the first sync and after a failure."""
        self._verified = False
        self._look_again = False
        """What is mended now may not be all."""
        self._look_put_off = False
        self._vain_looks = BURST
        """Audits in a row that found nothing: after few of them, one that is put off might find something."""
        self._watch: Watch[K, V] | None = None
        self._moved: set[K] | None = None
        self._head_start: HeadStart[K, V] | None = None
        self._writing: frozenset[K] = frozenset()
        """What the transaction that is under way changes: an audit that begins now may see it before or after."""
        self._retry_due = False
        self._drift: dict[K, V | None] = {}
        """What an audit found, and what may not be repaired yet."""
        self._limiter: RepairLimiter[K | None] = RepairLimiter()
        self._last_writer = ""
        self._writer = ""
        """Who caused the drift that was last heard of."""
        self._waiting: asyncio.TimerHandle | None = None

    @property
    def in_kernel(self) -> bool:
        """Whether the kernel holds what it should: the last write succeeded, and an audit has seen it."""
        in_doubt = self._look_put_off and self._is_disturbed
        return self._verified and not (self._unknown or self._drift or in_doubt)

    @property
    def _is_disturbed(self) -> bool:
        return self._vain_looks < BURST

    @property
    def desired(self) -> Mapping[K, V]:
        """All objects that the kernel should hold."""
        return self._planner.objects

    def owned(self) -> Iterable[tuple[ServiceName | None, Sequence[tuple[str, ...]]]]:
        """See proxy.backend.Planner."""
        return self._planner.owned()

    @property
    def backend(self) -> RuleBackend[K, V]:
        return self._backend

    @property
    def watched(self) -> bool:
        return self._watch is not None

    async def prepare(self) -> None:
        """Before the first plan: let it be written while it is made, if nothing has to be taken over."""
        if ahead := await self._backend.ahead():
            self._head_start = HeadStart(ahead, self._planner.objects)

    @property
    def plans_early(self) -> bool:
        return self._head_start is not None and self._head_start.may_last

    def plan(self, changed: Sequence[tuple[ServiceName, Sequence[Frontend]]]) -> None:
        """Note what the frontends of these services are now; `sync` writes it."""
        for service, frontends in changed:
            self._services.suspects[service] = tuple(frontends)
        self._planner.replace_all(changed, self._pending)
        if self._head_start:
            # The first sync compares all that is planned with what the kernel holds by then.
            self._head_start.go_on(self._pending.put)
            self._pending = Delta()

    def settle(self, surroundings: Surroundings) -> None:
        self._planner.settle(surroundings, self._pending)

    def retry_quarantined(self) -> None:
        """Let the next `sync` try what was refused once more: the kernel may have got what it lacked."""
        self._retry_due = bool(self.quarantined)
        if self._retry_due:
            self._wake()

    def _plan_quarantined(self) -> None:
        newer, self._retry_due = self._services.suspects.keys(), False
        self.plan([(service, one.frontends) for service, one in self.quarantined.items() if service not in newer])

    async def sync(self, *, resync: bool = False) -> None:
        """Write what was planned and repair what drifted; with `resync`, whatever else differs as well.

        After a failure the kernel's state is unknown, so the next sync reads it back, whatever it is asked for.
        """
        started = time.monotonic()
        full = resync or self._unknown
        if self._retry_due:
            self._plan_quarantined()
        try:
            changes = await (self._rewrite() if full else self._update())
        except BaseException as error:
            self._unknown = True
            self.stats.failures += isinstance(error, Exception)
            raise
        self._unknown = False
        if self._look_again:
            self._look_again = False
            self._ask_for_audit()
        for service in self._services.written():
            if self.quarantined.pop(service, None):
                self.history.note(f"service {service}", "no longer quarantined", trigger="kernel")
        self._succeeded(time.monotonic() - started, changes, full=full)

    def _succeeded(self, took_s: float, changes: int, *, full: bool) -> None:
        stats = self.stats
        first = not stats.syncs
        stats.syncs += 1
        stats.last_sync, stats.last_duration_s, stats.last_was_full = time.time(), took_s, full
        if changes or first:
            log.info("synced", rules=self.name, changes=changes, took_ms=round(took_s * 1000, 1))
        if first:
            self.audit_due.set()

    async def start_watch(self) -> None:
        """After the first sync: what we write at the start need not be heard."""
        if self._watch is None:
            self._watch = await self._backend.watch(lambda: self._planner.objects)
            if self._watch:
                self._watch.start(self._wake)

    def close(self) -> None:
        if self._watch:
            self._watch.close()
            self._watch = None

    # Writing

    async def _rewrite(self) -> int:
        head_start, self._head_start = self._head_start, None
        actual = await head_start.finish() if head_start else None
        if actual is None:
            actual = await self._backend.dump()
        delta = diff(self._planner.objects, actual)
        if self.stats.syncs and not self._unknown:
            planned = _touched(self._pending)
            self._count_repairs(_touched(delta) - planned, delta)
        self._pending = Delta()
        self._drift.clear()
        await self._apply(delta)
        return len(delta)

    async def _update(self) -> int:
        found = await self._drifted()
        # From here to the transaction nobody else has a turn: an audit knows each change as pending or as written.
        delta, self._pending = self._pending, Delta()
        self._repair(delta, found)
        if delta:
            await self._apply(delta)
        return len(delta)

    async def _apply(self, delta: Delta[K, V]) -> None:
        self._writing = frozenset(_touched(delta))
        if self._moved is not None:
            self._moved |= self._writing
        try:
            await self._backend.apply(delta)
        except CommandError as error:
            if error.returncode == NOT_INSTALLED or not self._services.suspects:
                raise
            await self._isolate(error)
        finally:
            self._writing = frozenset()

    # Quarantine

    async def _isolate(self, error: CommandError) -> None:
        """Write everything but the Services for which the kernel refuses it; those keep their last good version."""
        suspects = dict(self._services.suspects)
        self._put_back(suspects)
        try:
            bad = await self._without_culprits(suspects, error)
        except BaseException:
            # Nobody was found guilty, so all stay planned: the next sync writes them.
            self._plan_silently(suspects)
            raise
        self._quarantine(bad)

    async def _without_culprits(
        self, suspects: Mapping[ServiceName, Frontends], error: CommandError
    ) -> Mapping[ServiceName, CommandError]:
        """Write all suspects that can be written; gives back the others."""
        actual = await self._backend.dump()

        async def refusal(group: Sequence[ServiceName]) -> CommandError | None:
            nonlocal actual
            self._plan_silently({service: suspects[service] for service in group})
            refused = await self._backend.refusal(diff(self._planner.objects, actual))
            if self._backend.asking_changes:
                actual = await self._backend.dump()
            if refused or not self._backend.asking_changes:
                self._put_back(group)
            return refused

        if await refusal(()):
            raise error  # it is none of the Services
        bad = await culprits(list(suspects), refusal)
        self._plan_silently({service: suspects[service] for service in suspects.keys() - bad.keys()})
        await self._backend.apply(diff(self._planner.objects, actual))
        return bad

    def _put_back(self, services: Iterable[ServiceName]) -> None:
        self._plan_silently({service: self._services.good.get(service, ()) for service in services})

    def _plan_silently(self, services: Mapping[ServiceName, Frontends]) -> None:
        """What this changes is found by comparing with the kernel."""
        for service, frontends in services.items():
            self._planner.replace(service, frontends, Delta())

    def _quarantine(self, bad: Mapping[ServiceName, CommandError]) -> None:
        for service, error in bad.items():
            frontends = self._services.suspects.pop(service)
            reason = f"the kernel refuses it: {error.stderr.strip().partition(chr(10))[0]}"
            self.quarantined[service] = Quarantined(frontends, reason)
            self.stats.quarantines += 1
            self.history.note(f"service {service}", "quarantined", new=(f"{self.name}: {reason}",), trigger="kernel")
            log.warning("quarantined", rules=self.name, service=service, error=error)

    # Drift

    async def _drifted(self) -> dict[K, V | None]:
        """What is not as we wrote it, as far as that is known now."""
        drift: Drift[K, V] = self._watch.take() if self._watch else Drift()
        self._last_writer = drift.by or self._last_writer
        self._writer = drift.by or self._writer
        found, self._drift = self._drift, {}
        if drift.everything:
            # What is missing may be what the known drift refers to: the audit finds both, and they go in together.
            self._look_again = True
            if not (drift.much and drift.actual) or self._limiter.wait_s(None):
                return found
            self._vain_looks = 0  # one would have found much
        found |= drift.actual
        if drift.unread:
            seen = await self._backend.look(drift.unread)
            found |= {key: seen.get(key) for key in drift.unread}
        return found

    def _repair(self, delta: Delta[K, V], found: Mapping[K, V | None]) -> None:
        """Add to a change what mends these objects, as far as it may be done now."""
        desired = self._planner.objects
        waits: list[float] = []
        mended: list[K] = []
        fights = self._limiter.fights if found else {}
        is_much = len(found) > MOST  # that is held back as a whole
        for key, actual in found.items():
            planned = key in delta.put or key in delta.drop
            delta.put.pop(key, None)
            delta.drop.pop(key, None)
            if desired.get(key) == actual:
                continue
            if not planned and not is_much and (wait_s := self._limiter.wait_s(key)):
                self._drift[key] = actual
                waits.append(wait_s)
                if fights[key] == 1:
                    self._tell_of_fight(key, wait_s)
                continue
            delta.record(key, actual, desired.get(key))
            if not planned:
                mended.append(key)
        self._count_repairs(mended, delta)
        if waits:
            self._wake_in(min(waits))

    def _tell_of_fight(self, key: K, wait_s: float) -> None:
        writer = self._last_writer or "another program"
        log.warning("repairs held back", rules=self.name, object=key, undone_by=writer, for_s=round(wait_s, 1))

    def _count_repairs(self, keys: Collection[K], delta: Delta[K, V]) -> None:
        if not keys:
            return
        writer, self._writer = self._writer, ""
        old, new = delta.drop, delta.put
        repairs = (
            Repair(object_name(key, self.name), value_facts(old.get(key)), value_facts(new.get(key)), writer)
            for key in keys
        )
        kinds = Counter(self._backend.kind(key) for key in keys)
        self.history.repaired(kinds, repairs, self.name)
        self.stats.repairs += kinds
        self.stats.repaired += kinds.total()

    def fights(self) -> list[tuple[str, str]]:
        """Objects that somebody keeps changing, and who that is.

        A host that notices changes only by looking may look often, and find that they were to rules of others.
        """
        writer = self._last_writer or "another program"
        return [
            (
                object_name(key, self.name) if key else f"rules of {self.name}",
                f"undone more than {BURST} times by {writer}; repairs are held back",
            )
            for key in self._limiter.fights
            if key is not None or self._is_disturbed
        ]

    def _ask_for_audit(self) -> None:
        if self._look_put_off:
            return
        if wait_s := self._limiter.wait_s(None):
            self._look_put_off = True
            asyncio.get_running_loop().call_later(wait_s, self._look_at_last)
        else:
            self.audit_due.set()

    def _look_at_last(self) -> None:
        self._limiter.wait_s(None)  # it counts like one that was not put off
        self.audit_due.set()

    def _wake_in(self, wait_s: float) -> None:
        """One timer, for each sync looks at all that is held back."""
        if self._waiting:
            self._waiting.cancel()
        self._waiting = asyncio.get_running_loop().call_later(wait_s, self._wake)

    async def audit(self) -> None:
        """Read everything back; what differs is left for the next `sync`. Needs a sync that succeeded before."""
        moved = self._moved = _touched(self._pending) | self._writing
        try:
            actual = await self._backend.dump()
            found = diff(self._planner.objects, actual)
        finally:
            self._moved = None
            self._look_put_off = False
        self.stats.audits += 1
        moved |= _touched(self._pending)
        differing = {key: actual.get(key) for key in (*found.put, *found.drop) if key not in moved}
        self._vain_looks = 0 if differing else self._vain_looks + 1
        self._drift |= differing
        if not differing:
            self._verified = not self._unknown
        else:
            # Of what somebody does while that is mended a watch that only counts (LegacyWatch) may hear nothing.
            self._look_again = True
            log.warning("rules differ", rules=self.name, objects=len(differing), difference=describe(found))
        self._wake()


def _touched(delta: Delta[K, V]) -> set[K]:
    return {*delta.put, *delta.drop}
