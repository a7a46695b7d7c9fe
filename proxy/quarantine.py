"""Finds which Services the kernel refuses, when it refuses a transaction of many. Knows nothing of rules."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from controlloop.command import CommandError

T = TypeVar("T")

MOST = 100
"""When more are refused one by one, it is not their fault."""


async def culprits(
    suspects: Sequence[T], refusal: Callable[[Sequence[T]], Awaitable[CommandError | None]]
) -> dict[T, CommandError]:
    """Those suspects that are refused alone, with the reason.

    `refusal` tells of a group whether it is refused, with all that is known to be good. n suspects with k culprits
    cost about k times log n questions. The error is raised that leaves nobody to blame.
    """
    found: dict[T, CommandError] = {}
    groups = [suspects]
    while groups:
        group = groups.pop()
        error = await refusal(group)
        if error is None:
            continue
        if len(group) > 1:
            half = len(group) // 2
            groups += [group[half:], group[:half]]
        else:
            found[group[0]] = error
        if len(found) > MOST:
            raise error
    return found
