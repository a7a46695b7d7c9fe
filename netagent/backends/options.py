"""The values in the Backend object of a network configuration. Pure; OperatorError names the option and its value.

Option names, defaults and meaning are flannel's, so that one configuration serves both in a mixed overlay.
"""

from collections.abc import Mapping
from typing import Any

from controlloop.errors import OperatorError
from controlloop.family import Family
from subnet_alloc.codec import option

# The least a link may carry: RFC 791 and RFC 8200.
LEAST_MTU = {Family.V4: 68, Family.V6: 1280}


def number(options: Mapping[str, Any], name: str, *, default: int, limit: int) -> int:
    found = option(options, name)
    value = default if found is None else found
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
        raise OperatorError(f"Backend.{name} {value!r}: not a number from 0 to {limit}")
    return value


def boolean(options: Mapping[str, Any], name: str, *, default: bool) -> bool:
    found = option(options, name)
    value = default if found is None else found
    if not isinstance(value, bool):
        raise OperatorError(f"Backend.{name} {value!r}: not true or false")
    return value


def text(options: Mapping[str, Any], name: str) -> str:
    """Empty when absent. The value stays out of the error: it may be a secret."""
    value = option(options, name)
    if value is not None and not isinstance(value, str):
        raise OperatorError(f"Backend.{name}: not a text")
    return value or ""


def inner_mtu(outer: int, overhead: int, family: Family) -> int:
    """What `outer` bytes on the underlay leave for a packet of this family inside."""
    inner = outer - overhead
    if inner < LEAST_MTU[family]:
        raise OperatorError(f"Backend.MTU {outer}: leaves {inner} bytes, and a link needs {LEAST_MTU[family]}")
    return inner
