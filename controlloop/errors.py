"""Errors sorted by whose move is next."""

from dataclasses import dataclass

EXIT_FAULT = 1
EXIT_OPERATOR = 2


class OperatorError(Exception):
    """Only a person can mend it: bad configuration. One line that names the flag or key and the value; exit code 2."""


class UnavailableError(Exception):
    """Time may mend it: a store or program that does not answer. Retried with back-off, never fatal while running."""


class CompactedError(Exception):
    """The revision to watch from is gone from the store; list again."""


class VerificationError(Exception):
    """We must mend it: after applying, the kernel still differs. The text is the difference."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """One object left out because it cannot be understood; everything else goes on without it."""

    name: str
    """Where it stands: an etcd key, a file, `Service default/web`."""
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"
