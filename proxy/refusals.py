"""Why an object's text does not fit, for whoever wrote it: the field, what stands there, and what should.

Pure. msgspec says where and what it wanted but not what it found, so that is looked up, and only then.
"""

import re
from typing import Any

import msgspec

from controlloop.printable import printable

_INDEX = re.compile(r"\[([0-9]+)\]")
_ABSENT = object()
MEANINGS = {"matching regex": "not a DNS name", "Invalid enum value": "none of the values known here"}


def refusal(text: str, raw: bytes) -> str:
    """One line from what msgspec says (`what - at $.path`) of a JSON text."""
    what, found, path = text.rpartition(" - at `$")
    if not found:
        return printable(text)
    path = path.removesuffix("`")
    for said, meant in MEANINGS.items():
        if said in what:
            what = meant
    value = _found(raw, path)
    return ": ".join(printable(part) for part in (path.removeprefix("."), value, what) if part)


def _found(raw: bytes, path: str) -> str:
    """What stands at a path; empty where nothing does or where it is a whole object."""
    try:
        value = _value_at(msgspec.json.decode(raw), path)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # The text is broken somewhere behind the place that was refused.
        return ""
    if value is _ABSENT or isinstance(value, dict):
        return ""
    return value if isinstance(value, str) and value else msgspec.json.encode(value).decode()


def _value_at(value: Any, path: str) -> Any:
    """A path is `.key` and `[index]` in turn; a key may have dots in it."""
    if not path:
        return value
    index = _INDEX.match(path)
    if index is not None:
        number = int(index[1])
        inside = isinstance(value, list) and number < len(value)
        return _value_at(value[number], path[index.end() :]) if inside else _ABSENT
    keys = value.keys() if isinstance(value, dict) else ()
    for key in sorted(keys, key=len, reverse=True):
        rest = path[1 + len(key) :]
        if path.startswith(f".{key}") and rest[:1] in ("", ".", "["):
            return _value_at(value[key], rest)
    return _ABSENT
