"""Says once which objects are left out, and why."""

from collections.abc import Mapping

from controlloop.errors import Skipped
from controlloop.history import History, Verbs
from controlloop.logs import Log

SKIPS = Verbs("skipped", "skipped", "no longer skipped")


class SkippedLog:
    def __init__(self, log: Log, history: History) -> None:
        self.current: Mapping[str, Skipped] = {}
        self.total = 0
        """How many were ever left out, or left out for another reason."""
        self._log = log
        self._told: Mapping[str, Skipped] = {}
        """As it was given, which may take long to go through."""
        self.history = history

    def tell(self, skipped: Mapping[str, Skipped]) -> None:
        """Let these be all that are left out now; those that are new, or have a new reason, go into the log."""
        if skipped is self._told:
            return
        self._told = skipped
        before = {name: (one.reason,) for name, one in self.current.items()}
        changes: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        for name, one in skipped.items():
            if self.current.get(name) != one:
                self.total += 1
                changes[name] = (before.get(name, ()), (one.reason,))
                self._log.warning("skipped", name=name, reason=one.reason)
        for name in self.current.keys() - skipped.keys():
            self._log.info("no longer skipped", name=name)
            changes[name] = (before[name], ())
        self.history.noted("object", changes, "state", lambda old, new: (old, new), SKIPS)
        self.current = dict(skipped)
