"""nodenet's own annotations on a Service, each from its text. Pure.

RefusedError names the annotation and its value; the caller goes on with the default, as nobody's traffic should stop
for one of these.
"""

import math
import re
from collections.abc import Collection, Mapping

from controlloop.durations import parse_duration
from controlloop.family import IPAddress
from controlloop.printable import printable
from proxy.address_text import parse_address
from proxy.frontends import Balance
from proxy.objects import Refuse, RefusedError

BALANCE = "annotation nodenet.io/balance"
WEIGHTS = "annotation nodenet.io/weights"
DRAIN_TIMEOUT = "annotation nodenet.io/drain-timeout"

HEAVIEST = 1000
_WEIGHT = re.compile(r"[0-9]{1,4}")
_SECONDS = re.compile(r"[0-9]{1,9}")
_ZONE = re.compile(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?")

Weights = Mapping[IPAddress | str, int]
"""By the address of an endpoint or the name of a zone; whatever is not in it weighs 1."""


def read_balance(text: str, known: Collection[Balance]) -> Balance:
    for balance in known:
        if balance.value == text:
            return balance
    names = ", ".join(balance.value for balance in Balance if balance in known)
    raise RefusedError(f"{BALANCE}: {printable(text)} is none of {names}")


def read_drain_timeout(text: str) -> int:
    """Whole seconds, rounded up, of a number of seconds or of a duration as Go writes it."""
    try:
        seconds = int(text) if _SECONDS.fullmatch(text) else math.ceil(parse_duration(text))
    except ValueError:
        seconds = -1
    if seconds < 0:
        raise RefusedError(f"{DRAIN_TIMEOUT}: {printable(text)} is no duration such as 30s or 5m")
    return seconds


def read_weights(text: str, refuse: Refuse) -> Weights:
    """`10.244.1.5=3, zone-a=2`. What cannot be read is told to `refuse`, and the rest holds."""
    weights: dict[IPAddress | str, int] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        try:
            key, weight = _weight(item)
        except RefusedError as error:
            refuse(str(error))
            continue
        if key in weights:
            refuse(f"{WEIGHTS}: {key} is there twice; {weights[key]} is used")
        weights.setdefault(key, weight)
    return weights


def _weight(item: str) -> tuple[IPAddress | str, int]:
    key, _, number = (part.strip() for part in item.partition("="))
    if not _WEIGHT.fullmatch(number) or int(number) > HEAVIEST:
        raise RefusedError(f"{WEIGHTS}: {printable(item)} is not ADDRESS=WEIGHT or ZONE=WEIGHT, 0 to {HEAVIEST}")
    try:
        return parse_address(WEIGHTS, key), int(number)
    except RefusedError:
        if not _ZONE.fullmatch(key):
            raise
    return key, int(number)
