"""Lengths of time as Go writes them (`time.ParseDuration`), in flags and configuration files of a drop-in. Pure."""

import re

SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
TERM = r"([0-9]{1,15}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(ns|us|µs|μs|ms|s|m|h)"
_TERM = re.compile(TERM)
_DURATION = re.compile(rf"[-+]?(?:0|(?:{TERM})+)")


def parse_duration(text: str) -> float:
    """`1h30m`, `500ms`, `0` in seconds. ValueError for anything else, a number without a unit included."""
    if not _DURATION.fullmatch(text):
        raise ValueError(text)
    length = sum(float(number) * SECONDS[unit] for number, unit in _TERM.findall(text))
    return -length if text.startswith("-") else length


def format_duration(seconds: float) -> str:
    """As Go prints it, to the nanosecond: 5400 is `1h30m0s`, 0.25 is `250ms`."""
    nanoseconds = round(abs(seconds) * 1e9)
    sign = "-" if seconds < 0 else ""
    if 0 < nanoseconds < 10**9:
        unit, size = next(
            (unit, size) for unit, size in (("ms", 10**6), ("\u00b5s", 10**3), ("ns", 1)) if nanoseconds >= size
        )
        return f"{sign}{_decimal(nanoseconds, size)}{unit}"
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{head}{_decimal(rest, 10**9)}s"


def _decimal(amount: int, size: int) -> str:
    whole, part = divmod(amount, size)
    digits = str(part).zfill(len(str(size)) - 1).rstrip("0") if part else ""
    return f"{whole}.{digits}" if digits else str(whole)
