"""What only a person can end, in one line. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    reason: str
    code: str
    """What netctl knows it by; `netctl help CODE` says what to do."""
    since: float | None = None
    """Seconds since the epoch."""


def overflow(name: str) -> Finding:
    """Of a socket in which we hear of changes, ours or not."""
    return Finding(
        name, "changes come faster than they can be read; looks at everything instead are held back", "NN109"
    )


def fight(name: str, writer: str) -> Finding:
    """Over what is ours, with who undoes it; empty when the kernel did not say."""
    by = writer or "somebody unknown"
    return Finding(name, f"undone again and again, last by {by}; repairs are held back", "NN108")
