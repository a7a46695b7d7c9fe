"""What the commands of `netctl lab` share."""

from collections.abc import Callable
from typing import TypeVar

import click

from controlloop.errors import OperatorError

T = TypeVar("T")

NAME = click.option("--name", default="lab", show_default=True, help="Which lab.")


def named(name: str) -> str:
    """How to name that lab in a command."""
    return "" if name == "lab" else f" --name {name}"


def lab_errors(action: Callable[[], T]) -> T:
    """Whatever the lab refuses, as one line to the operator; nothing of a lab can be done or seen without root."""
    from lab.cluster import LabError, can_run  # noqa: PLC0415
    from lab.host import ProgramError  # noqa: PLC0415
    from lab.pods import PodError  # noqa: PLC0415
    from lab.ready import NotStartedError  # noqa: PLC0415

    if reason := can_run():
        raise OperatorError(f"lab: {reason}")
    try:
        return action()
    except (LabError, NotStartedError, PodError, ProgramError) as error:
        raise OperatorError(f"lab: {error}") from None
