"""`netctl commands`, `netctl completion` and `netctl man`."""

from pathlib import Path

import click

from netctl.options import OUTPUT

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_NETCTL_COMPLETE"
"""By which the shell's function asks netctl itself: click's protocol."""


@click.command()
@OUTPUT
@click.pass_context
def commands(context: click.Context, form: str) -> int:
    """All commands with their options, also as data."""
    from netctl.output import Column, Listing, render_listing  # noqa: PLC0415
    from netctl.reference.commands import all_commands  # noqa: PLC0415

    columns = (
        Column("COMMAND", lambda item: item["name"]),
        Column("WHAT IT DOES", lambda item: item["summary"], wide=True),
        Column("OPTIONS", lambda item: len(item["options"]), right=True),
    )
    items = [each.document for each in all_commands(context.find_root().command)]
    click.echo(render_listing(Listing("CommandList", items, columns, lambda item: str(item["name"])), form))
    return 0


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Print a script that makes the shell complete what you type.

    bash: `netctl completion bash > /etc/bash_completion.d/netctl`

    zsh: `netctl completion zsh > /usr/local/share/zsh/site-functions/_netctl`

    fish: `netctl completion fish > /etc/fish/completions/netctl.fish`
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    program = context.find_root().command
    chosen = get_completion_class(shell)
    assert chosen is not None
    click.echo(chosen(program, {}, "netctl", VARIABLE).source())
    return 0


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.pass_context
def man(context: click.Context, directory: Path) -> int:
    """Write a man page for each command into a directory.

    `netctl man /usr/local/share/man/man1`
    """
    from controlloop import __version__  # noqa: PLC0415
    from controlloop.errors import OperatorError  # noqa: PLC0415
    from netctl.reference.commands import all_commands  # noqa: PLC0415
    from netctl.reference.man import SECTION, man_page, page_name  # noqa: PLC0415

    described = list(all_commands(context.find_root().command))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for each in described:
            (directory / f"{page_name(each.words)}.{SECTION}").write_text(man_page(each, __version__))
    except OSError as error:
        raise OperatorError(f"man: {directory}: {error.strerror}") from None
    click.echo(f"{directory}: {len(described)} man pages")
    return 0
