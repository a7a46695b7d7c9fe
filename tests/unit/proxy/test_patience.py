"""What must come about in the end, however busy everybody is: retries, and a word that nothing gets written."""

import asyncio
from contextlib import suppress

import pytest
from deadline import PATIENCE_S

from controlloop.errors import UnavailableError
from controlloop.family import Family
from proxy import daemon
from proxy.config import FilesSettings, Settings
from proxy.rules import Rules


class BusyEngine:
    """Somebody gives reason for one more audit all the time."""

    name, watched = "busy", False

    def __init__(self):
        self.audit_due, self.retried = asyncio.Event(), asyncio.Event()
        self.audit_due.set()

    async def start_watch(self):
        pass

    async def audit(self):
        await asyncio.sleep(0)
        self.audit_due.set()

    def retry_quarantined(self):
        self.retried.set()

    def close(self):
        pass


async def test_what_was_refused_is_tried_again_while_audits_are_asked_for_all_the_time():
    engine = BusyEngine()
    auditing = asyncio.create_task(Rules({Family.V4: engine}, {}, 0.01).keep_auditing())
    async with asyncio.timeout(PATIENCE_S):
        await engine.retried.wait()
    auditing.cancel()
    with suppress(asyncio.CancelledError):
        await auditing


@pytest.mark.kube_proxy("6.1-43")
async def test_a_sync_that_nobody_asked_for_and_that_never_succeeds_is_an_illness(tmp_path, monkeypatch):
    async def failing(_written):
        raise UnavailableError("the kernel")

    proxy = daemon.Netproxy(Settings("node", FilesSettings(str(tmp_path))))
    monkeypatch.setattr(proxy._rules, "sync", failing)
    with suppress(UnavailableError):
        await proxy._sync(False)
    liveness = proxy._status.liveness
    now = liveness._clock()
    liveness._clock = lambda: now + 61
    assert liveness.livez().status == 503
