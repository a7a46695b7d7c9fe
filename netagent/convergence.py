"""Brings the kernel to the desired overlay: one change or one drifted object by itself, or all of it by looking."""

from collections.abc import Mapping
from functools import partial

from controlloop.delta import Delta
from controlloop.logs import Log
from controlloop.reconcile import Kernel, describe, keys_of, reconcile
from netagent.healing import Healing
from netagent.kernel import OverlayError
from netagent.monitor import Monitor
from netagent.overlay import Overlay
from netagent.state import Key, Object, OverlayState

log = Log("netagent")

Suspects = Mapping[Key, Object | None]
"""What notifications saw in the place of objects; None: nothing."""


class Convergence:
    def __init__(
        self, kernel: Kernel[Key, Object], overlay: Overlay, healing: Healing, monitor: Monitor | None
    ) -> None:
        self.reached = False
        """The last pass over everything, and each change since, went in."""
        self.full_pass_due = True
        self._kernel = kernel
        self._overlay = overlay
        self._healing = healing
        self._monitor = monitor

    def start_over(self) -> None:
        self.reached, self.full_pass_due = False, True

    async def bring_in(self, delta: Delta[Key, Object], suspects: Suspects) -> Delta[Key, Object]:
        """Make the change and mend what is suspect; gives back what was done. OverlayError for what did not go in,
        after which the next time is a full pass.
        """
        reached, self.reached = self.reached, False
        expected = keys_of(delta)
        if reached and not self.full_pass_due:
            if delta:
                await self._kernel.apply(delta)
            foreign = {key: actual for key, actual in suspects.items() if key not in expected}
            repair = self._healing.repair(foreign, self._overlay.objects)
            expected |= keys_of(repair)
            if await self._goes_in(repair):
                self.reached = True
                return Delta({**delta.put, **repair.put}, {**delta.drop, **repair.drop})
        # Before the first look nothing was ours to be undone, and after a failure what is missing is no drift.
        admit = partial(self._healing.admit, expected=expected) if reached else None
        report = await reconcile(self._desired_from_now, self._kernel, admit=admit)
        self._healing.held = set(report.held)
        if reached and (mended := keys_of(report.delta) - expected):
            log.info("drift repaired", objects=describe(report.delta))
            self._healing.repaired(report.delta, mended)
        self.reached, self.full_pass_due = True, False
        return report.delta

    async def _goes_in(self, repair: Delta[Key, Object]) -> bool:
        """False when things are not as the notification said, any more."""
        try:
            if repair:
                await self._kernel.apply(repair)
                log.info("drift repaired", objects=describe(repair))
                self._healing.repaired(repair, keys_of(repair))
        except OverlayError as error:
            log.debug("repair refused", reason=error)
            return False
        return True

    def _desired_from_now(self) -> OverlayState:
        # The dump that follows sees all that was said so far.
        if self._monitor:
            self._monitor.drain()
        self._healing.forget()
        return self._overlay.objects
