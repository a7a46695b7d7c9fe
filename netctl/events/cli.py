"""`netctl events`."""

from pathlib import Path

import click

from controlloop.durations import parse_duration
from netctl.options import FROM, OUTPUT, node_of


def seconds(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    del context, parameter
    if value is None:
        return None
    try:
        length_s = parse_duration(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no length of time, such as 90s, 5m or 1h30m") from None
    if length_s < 0:
        raise click.BadParameter(f"{value!r} lies in the future")
    return length_s


@click.command()
@click.argument("text", default="", metavar="[OBJECT]")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens; Ctrl-C ends it.")
@click.option("--since", "since_s", metavar="TIME", callback=seconds, help="Only of the last 5m, 90s, 1h30m...")
@OUTPUT
@FROM
def events(text: str, form: str, bundle: Path | None, *, follow: bool, since_s: float | None) -> int:
    """What did the daemons change lately, and what made them?

    OBJECT is a part of a name: `default/web`, `route`, `10.244.7.0`. Exit code 3: a daemon does not answer.
    """
    from netctl.events.following import follow_events  # noqa: PLC0415
    from netctl.events.reading import Filter, list_events  # noqa: PLC0415

    node = node_of(bundle)
    if follow and not node.is_live:
        raise click.UsageError(f"-f follows a running node, and {bundle} is a record of one: leave out -f or --from")
    wanted = Filter(text, since_s)
    return follow_events(node, wanted, form) if follow else list_events(node, wanted, form)
