"""Connects from the client's network namespace, on the word of the benchmark: one JSON line in, one out.

Standard library only. Connections are closed with a reset, so that a hundred thousand of them leave nothing behind.
"""

import json
import random
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

RESET = struct.pack("ii", 1, 0)
Target = tuple[str, int]
PATIENCE_S = 5.0
ANSWER_S, SILENCE_S = 0.005, 0.05
"""When a try is given up that hopes for an answer, a hundred times what one takes; and one that must not get any."""


def connect(target: Target, timeout_s: float) -> socket.socket:
    made = socket.socket()
    made.settimeout(timeout_s)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    try:
        made.connect(target)
    except OSError:
        made.close()
        raise
    return made


def answer(target: Target, timeout_s: float) -> str:
    """The address that the endpoint was reached at; empty: nobody answers."""
    try:
        with connect(target, timeout_s) as made:
            return made.recv(64).decode()
    except OSError:
        return ""


def until(targets: list[Target], wanted: str, since: float, within_s: float) -> float:
    """Seconds since `since` (monotonic, the same for all processes) until every target gives the answer wanted: an
    address, `any`, or empty for none; then what counts is when the try began that got none.
    """
    patience_s = ANSWER_S if wanted else SILENCE_S
    for target in targets:
        while True:
            began = time.monotonic()
            got = answer(target, patience_s)
            if got == wanted or (wanted == "any" and got):
                break
            if time.monotonic() - since > within_s:
                raise SystemExit(f"bench: {target} gives {got!r}, not {wanted!r}, after {within_s} s")
    return (time.monotonic() if wanted else began) - since


def first_packets(targets: list[Target], count: int, beside: list[list[Target]]) -> list[list[float]]:
    """Microseconds that connecting takes: for `count` connections to one of the targets, and for as many to one of each
    of those `beside`, turn by turn.
    """
    took: list[list[float]] = [[] for _ in (targets, *beside)]
    drawn = [random.choices(each, k=count) for each in (targets, *beside)]  # noqa: S311
    for targeted in zip(*drawn, strict=True):
        for target, times in zip(targeted, took, strict=True):
            started = time.perf_counter()
            made = connect(tuple(target), PATIENCE_S)
            times.append((time.perf_counter() - started) * 1e6)
            made.close()
    return took


def rate(targets: list[Target], seconds: float) -> float:
    """Connections in a second, one after the other."""
    count, started = 0, time.monotonic()
    while (now := time.monotonic()) < started + seconds:
        connect(targets[count % len(targets)], PATIENCE_S).close()
        count += 1
    return count / (now - started)


COMMANDS: dict[str, Callable[..., Any]] = {"until": until, "first_packets": first_packets, "rate": rate}


def main() -> None:
    for line in sys.stdin:
        name, targets, *rest = json.loads(line)
        result = COMMANDS[name]([(address, port) for address, port in targets], *rest)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
