"""When rules are written incrementally, when wholly, what a failure costs whom, and what drift does."""

import asyncio

import pytest

from controlloop.command import CommandError
from controlloop.delta import Delta
from controlloop.drift import Drift
from proxy.frontends import ServiceName
from proxy.sync import RuleSync

WEB, OTHER, BAD = ServiceName("default", "web"), ServiceName("default", "other"), ServiceName("default", "bad")


class Names:
    """A planner whose objects are the services' names; frontends are anything that compares."""

    def __init__(self):
        self.objects = {"base": "chain"}

    def replace(self, service, frontends, delta):
        self._set(str(service), frontends or None, delta)

    def replace_all(self, changed, delta):
        for service, frontends in changed:
            self.replace(service, frontends, delta)

    def settle(self, surroundings, delta):
        self._set("base", surroundings, delta)

    def _set(self, key, value, delta):
        delta.record(key, self.objects.get(key), value)
        self.objects.pop(key, None)
        if value is not None:
            self.objects[key] = value


class MemoryWatch:
    def __init__(self):
        self.drift, self.wake = Drift(), None

    def start(self, wake):
        self.wake = wake

    def take(self):
        taken, self.drift = self.drift, Drift()
        return taken

    def close(self):
        self.wake = None


class MemoryRules:
    """Rules in memory that refuse, as a kernel does, a transaction with anything called `refused` in it."""

    def __init__(self, *, asking_changes=False):
        self.rules, self.dumps, self.applied = {}, 0, []
        self.failures = 0
        self.is_quick = False
        self.may_last = True
        self.asking_changes = asking_changes
        self.watching = MemoryWatch()

    async def dump(self):
        self.dumps += 1
        await asyncio.sleep(0)
        return dict(self.rules)

    async def apply(self, delta):
        if self.failures:
            self.failures -= 1
            raise CommandError(["nft", "-f", "-"], 1, "Device or resource busy")
        if error := self._judge(delta):
            raise error
        self.applied.append((dict(delta.put), dict(delta.drop)))
        delta.apply_to(self.rules)

    async def ahead(self):
        return self if self.is_quick and not self.rules else None

    def goes_ahead(self, key, _value):
        return key != "base"

    async def apply_ahead(self, delta):
        await self.apply(delta)

    async def refusal(self, delta):
        error = self._judge(delta)
        if self.asking_changes and not error:
            delta.apply_to(self.rules)
        return error

    async def look(self, keys):
        return {key: self.rules[key] for key in keys if key in self.rules}

    async def watch(self, _desired):
        return self.watching

    def kind(self, _key):
        return "rule"

    async def cleanup(self):
        self.rules.clear()

    def _judge(self, delta):
        return CommandError(["nft"], 1, "Invalid argument") if ("refused",) in delta.put.values() else None


class Engine(RuleSync):
    def __init__(self, **rules):
        self.rules = MemoryRules(**rules)
        self.woken = asyncio.Event()
        super().__init__("memory", Names(), self.rules, self.woken.set)


@pytest.fixture(params=[False, True], ids=["asking changes nothing", "asking is doing"])
def engine(request):
    return Engine(asking_changes=request.param)


@pytest.fixture
async def synced(engine):
    """An engine after its first sync and audit, with one service."""
    engine.plan([(WEB, ("a",))])
    await engine.sync()
    await engine.audit()
    await engine.start_watch()
    engine.rules.dumps, engine.rules.applied = 0, []
    return engine


@pytest.mark.kube_proxy("gap 5.7-13")
async def test_in_the_kernel_means_written_and_read_back(engine):
    assert not engine.in_kernel
    await engine.sync()
    assert not engine.in_kernel
    assert engine.audit_due.is_set()
    await engine.audit()
    assert engine.in_kernel


async def test_what_the_first_look_finds_is_looked_at_once_more_when_it_is_mended(engine):
    await engine.sync()
    engine.audit_due.clear()
    engine.rules.rules = {"stray": "x"}
    await engine.audit()
    await engine.sync()
    assert not engine.in_kernel
    assert engine.audit_due.is_set()
    await engine.audit()
    assert engine.in_kernel


async def test_the_first_sync_takes_over_what_an_earlier_process_left(engine):
    engine.rules.rules = {"base": "chain", "default/web": ("old",), "default/gone": ("x",)}
    engine.plan([(WEB, ("a",))])
    await engine.sync()
    assert engine.rules.rules == {"base": "chain", "default/web": ("a",)}
    assert not engine.stats.repairs


@pytest.mark.kube_proxy("6.1-20", "6.1-21", "gap 5.7-2")
async def test_a_change_is_written_without_reading_anything_back(synced):
    synced.plan([(OTHER, ("b",))])
    await synced.sync()
    assert synced.rules.applied == [({"default/other": ("b",)}, {})]
    assert synced.rules.dumps == 0


async def test_other_surroundings_are_a_change_like_any_other(synced):
    synced.settle("another chain")
    await synced.sync()
    assert synced.rules.applied == [({"base": "another chain"}, {"base": "chain"})]


async def test_without_a_change_nothing_is_run(synced):
    synced.plan([(WEB, ("a",))])
    await synced.sync()
    assert (synced.rules.applied, synced.rules.dumps) == ([], 0)


async def test_a_service_that_came_and_went_between_two_syncs_costs_nothing(synced):
    synced.plan([(OTHER, ("b",))])
    synced.plan([(OTHER, ())])
    await synced.sync()
    assert synced.rules.applied == []


@pytest.mark.kube_proxy("gap 3.9-1")
async def test_after_a_failure_the_next_sync_reads_back_and_nothing_planned_is_lost(synced):
    synced.rules.failures = 2  # the second time it was asked without the Service
    synced.plan([(OTHER, ("b",))])
    with pytest.raises(CommandError):
        await synced.sync()
    assert not synced.in_kernel
    await synced.sync()
    assert synced.rules.dumps >= 1
    assert synced.rules.rules == {"base": "chain", "default/web": ("a",), "default/other": ("b",)}
    assert synced.in_kernel
    assert not synced.quarantined
    assert not synced.stats.repairs


async def test_a_cancelled_sync_counts_as_a_failed_one(synced):
    """The program may have been ended before or after the kernel took the change."""

    async def cancelled(_delta):
        raise asyncio.CancelledError

    synced.plan([(OTHER, ("b",))])
    synced.rules.apply = cancelled
    with pytest.raises(asyncio.CancelledError):
        await synced.sync()
    assert not synced.in_kernel


# Quarantine


@pytest.mark.kube_proxy("extra-4")
@pytest.mark.parametrize("others", [0, 1, 7])
async def test_a_service_that_the_kernel_refuses_keeps_nobody_out(synced, others):
    names = [ServiceName("default", f"s{number}") for number in range(others)]
    synced.plan([(name, ("b",)) for name in names] + [(BAD, ("refused",))])
    await synced.sync()
    assert synced.rules.rules == {"base": "chain", "default/web": ("a",)} | {str(name): ("b",) for name in names}
    assert list(synced.quarantined) == [BAD]
    assert "Invalid argument" in synced.quarantined[BAD].reason
    assert synced.stats.quarantines == 1


async def test_a_refused_version_leaves_the_last_good_one_in_force(synced):
    synced.plan([(WEB, ("refused",))])
    await synced.sync()
    assert synced.rules.rules["default/web"] == ("a",)
    assert WEB in synced.quarantined


async def test_a_refused_service_is_let_in_when_it_is_mended(synced):
    synced.plan([(BAD, ("refused",))])
    await synced.sync()
    synced.plan([(BAD, ("mended",))])
    await synced.sync()
    assert synced.rules.rules["default/bad"] == ("mended",)
    assert not synced.quarantined


async def test_a_refused_service_is_tried_again(synced):
    synced.plan([(BAD, ("refused",))])
    await synced.sync()
    synced.rules._judge = lambda _delta: None
    synced.retry_quarantined()
    await synced.sync()
    assert synced.rules.rules["default/bad"] == ("refused",)
    assert not synced.quarantined


async def test_a_refused_service_that_is_deleted_is_forgotten(synced):
    synced.plan([(BAD, ("refused",))])
    await synced.sync()
    synced.plan([(BAD, ())])
    await synced.sync()
    assert not synced.quarantined


async def test_no_service_is_blamed_for_what_is_refused_without_any(engine):
    engine.plan([(WEB, ("a",))])
    engine.settle(("refused",))
    with pytest.raises(CommandError):
        await engine.sync()
    assert not engine.quarantined


# Drift


async def test_what_somebody_changed_is_mended_at_once_and_counted(synced):
    synced.rules.rules["default/web"] = ("meddled",)
    synced.rules.watching.drift.note("default/web", ("meddled",))
    await synced.sync()
    assert synced.rules.rules["default/web"] == ("a",)
    assert synced.stats.repairs == {"rule": 1}
    assert synced.rules.dumps == 0


async def test_what_somebody_added_is_taken_away(synced):
    synced.rules.rules["stray"] = ("x",)
    synced.rules.watching.drift.note("stray", ("x",))
    await synced.sync()
    assert "stray" not in synced.rules.rules


async def test_what_was_only_touched_is_asked_for(synced):
    del synced.rules.rules["default/web"]
    synced.rules.watching.drift.unread |= {"default/web", "base"}
    await synced.sync()
    assert synced.rules.rules["default/web"] == ("a",)
    assert synced.stats.repairs == {"rule": 1}


async def test_a_planned_change_of_something_that_drifted_is_no_repair(synced):
    del synced.rules.rules["default/web"]
    synced.rules.watching.drift.note("default/web", None)
    synced.plan([(WEB, ("b",))])
    await synced.sync()
    assert synced.rules.applied == [({"default/web": ("b",)}, {})]
    assert not synced.stats.repairs


async def test_an_audit_finds_what_nobody_told_and_the_next_sync_mends_it(synced):
    synced.rules.rules = {"base": "chain", "default/web": ("meddled",), "stray": "x"}
    await synced.audit()
    assert synced.woken.is_set()
    assert not synced.in_kernel
    await synced.sync()
    assert synced.rules.rules == {"base": "chain", "default/web": ("a",)}
    assert synced.stats.repairs == {"rule": 2}
    assert synced.in_kernel


async def test_what_changes_during_an_audit_is_no_drift(synced):
    audit = asyncio.create_task(synced.audit())
    await asyncio.sleep(0)
    synced.plan([(OTHER, ("b",))])
    await synced.sync()
    synced.plan([(WEB, ("c",))])
    await audit
    await synced.sync()
    assert synced.rules.rules == {"base": "chain", "default/web": ("c",), "default/other": ("b",)}
    assert not synced.stats.repairs


async def test_a_flush_is_answered_with_everything(synced):
    names = [ServiceName("default", f"s{number}") for number in range(1500)]
    synced.plan([(name, ("b",)) for name in names])
    await synced.sync()
    before = dict(synced.rules.rules)
    synced.rules.rules.clear()
    synced.rules.watching.drift.everything = True
    await synced.sync()
    assert synced.audit_due.is_set()
    synced.rules.dumps = 0
    await synced.audit()
    await synced.sync()
    assert synced.rules.rules == before
    assert synced.stats.repairs == {"rule": len(before)}
    assert synced.rules.dumps == 1


async def test_what_is_heard_while_everything_is_read_is_looked_for_after_the_mending(synced):
    synced.rules.rules.clear()
    await synced.audit()
    synced.audit_due.clear()
    synced.rules.watching.drift.everything = True
    mended = asyncio.Event()

    async def apply(delta):
        assert not synced.audit_due.is_set()
        delta.apply_to(synced.rules.rules)
        mended.set()

    synced.rules.apply = apply
    await synced.sync()
    assert mended.is_set()
    assert synced.audit_due.is_set()


async def test_what_lost_more_than_is_known_is_mended_as_a_whole(synced):
    """A rule cannot go back before the set that it names, and of that set nobody told."""
    synced.rules.rules.clear()
    synced.rules.watching.drift = Drift({"default/web": None}, everything=True)
    await synced.sync()
    assert not synced.rules.applied
    await synced.audit()
    await synced.sync()
    assert synced.rules.applied == [({"base": "chain", "default/web": ("a",)}, {})]


async def test_where_all_counts_as_changed_it_is_written_before_it_is_read(synced):
    synced.rules.rules.clear()
    synced.rules.watching.drift = Drift({"base": None, "default/web": None}, everything=True, much=True)
    await synced.sync()
    assert synced.rules.applied == [({"base": "chain", "default/web": ("a",)}, {})]
    assert synced.rules.dumps == 0
    assert synced.audit_due.is_set()


async def test_whoever_flushes_all_the_time_is_not_answered_all_the_time(synced):
    for _ in range(30):
        synced.rules.rules.clear()
        synced.rules.watching.drift = Drift({"base": None, "default/web": None}, everything=True, much=True)
        await synced.sync()
    assert 1 < len(synced.rules.applied) <= 10
    assert synced.fights()


async def look_for_strangers(engine, *, times, meddle):
    """As a host does that hears only that something was changed, of whoever's."""
    for _ in range(times):
        meddle(engine.rules.rules)
        engine.rules.watching.drift.everything = True
        await engine.sync()
        if engine.audit_due.is_set():
            engine.audit_due.clear()
            await engine.audit()


async def test_many_changes_to_rules_of_others_are_no_fight(synced):
    await look_for_strangers(synced, times=15, meddle=lambda _: None)
    assert synced.stats.audits == 1 + 10
    assert not synced.fights()
    assert synced.in_kernel


async def test_many_changes_of_whoever_knows_what_to_ours_are_a_fight(synced):
    await look_for_strangers(synced, times=15, meddle=dict.clear)
    assert synced.fights()
    assert not synced.in_kernel


async def test_a_fight_is_held_back_and_told(synced):
    for _ in range(15):
        synced.rules.rules.pop("default/web", None)
        synced.rules.watching.drift = Drift({"default/web": None}, by="spoiler")
        await synced.sync()
    assert synced.stats.repairs == {"rule": 10}
    ((name, reason),) = synced.fights()
    assert "default/web" in name
    assert "spoiler" in reason
    assert not synced.in_kernel


async def test_a_fight_over_one_object_delays_no_other(synced):
    for _ in range(15):
        synced.rules.rules.pop("default/web", None)
        synced.rules.watching.drift = Drift({"default/web": None})
        await synced.sync()
    synced.plan([(OTHER, ("b",))])
    await synced.sync()
    assert synced.rules.rules["default/other"] == ("b",)


def test_the_planner_in_this_file_is_one():
    planner, delta = Names(), Delta()
    planner.replace(WEB, ("a",), delta)
    assert delta.put == {"default/web": ("a",)}
