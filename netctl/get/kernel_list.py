"""Prints a list that was read from the kernel beside what the daemons want, and says how that went."""

from collections.abc import Callable, Iterable

import click

from controlloop.command import CommandError
from netctl.actual.refusal import is_refusal
from netctl.exit_codes import FINDING, OK, REFUSED, UNREACHABLE
from netctl.get.daemon_pages import Silent
from netctl.get.fitting import fitted
from netctl.output import Item, Listing, render_listing
from netctl.terminal import painter


def print_list(
    read: Callable[[Silent], Iterable[Item]],
    listing: Callable[[list[Item]], Listing],
    form: str,
    is_wrong: Callable[[Item], bool] = lambda _: False,
) -> int:
    """Exit code 1: something in it is wrong; 3: a daemon is silent; 5: the kernel may not be asked."""
    silent = Silent()
    try:
        items = list(read(silent))
    except CommandError as error:
        click.echo(f"netctl: {error}", err=True)
        return REFUSED if is_refusal(error) else UNREACHABLE
    for line in silent.lines:
        click.echo(line, err=True)
    if text := render_listing(fitted(listing(items), form), form, painter()):
        click.echo(text)
    if silent.reasons:
        return UNREACHABLE
    return FINDING if any(map(is_wrong, items)) else OK
