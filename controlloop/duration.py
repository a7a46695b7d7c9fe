"""Lengths of time as Go writes them: `30s`, `1h30m`, `1.5s`. Pure."""

import re

UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ns": 1e-9}
PART = re.compile(r"([0-9]{1,12}\.?[0-9]{0,12}|\.[0-9]{1,12})(h|ms|m|s|us|\u00b5s|\u03bcs|ns)")
WHOLE = re.compile(rf"([-+]?)(0|(?:{PART.pattern})+)")


def parse_duration(text: str) -> float:
    """Seconds. ValueError when it is no duration: a number needs its unit, 0 alone does not."""
    found = WHOLE.fullmatch(text)
    if found is None:
        raise ValueError("want a length of time such as 30s or 1h30m")
    seconds = sum(float(number) * UNITS_S[unit] for number, unit in PART.findall(found[2]))
    return -seconds if found[1] == "-" else seconds


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
