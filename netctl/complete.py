"""What the shell offers for a word of ours: names that exist. Whatever fails offers nothing."""

from collections.abc import Callable, Iterable
from contextlib import suppress

import click

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def services(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """`default/web`: those that netproxy serves on this node."""
    del context, parameter
    from controlloop.client import UnreachableError  # noqa: PLC0415
    from netctl.node import PROXY, LiveNode  # noqa: PLC0415

    with suppress(UnreachableError):
        return [str(name) for name in LiveNode().page(PROXY, f"/service-names/{typed}")]
    return []


def codes(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """Of findings, and commands."""
    del parameter
    from netctl.findings.catalogue import CATALOGUE  # noqa: PLC0415

    program = context.find_root().command
    commands = program.commands if isinstance(program, click.Group) else ()
    return beginning(typed, (*commands, *CATALOGUE, "codes"))


def lab_hosts(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """Of the lab that --name names."""
    del parameter
    from lab.cluster import LabError, attach  # noqa: PLC0415

    with suppress(LabError):
        spec = attach(context.params.get("name") or "lab").spec
        return beginning(typed, spec.hosts)
    return []


def beginning(typed: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(typed)]
