"""The table of all commands, read out of their declarations, so that no page of it can say something else. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click

EXIT_STATUS = "Exit code "
"""How the paragraph of a command's help begins that tells its exit codes: `Exit code 0: ...; 1: ...`."""

PARAGRAPH = re.compile(rf"\n\n|\n(?={EXIT_STATUS})")


@dataclass(frozen=True, slots=True)
class Option:
    flags: tuple[str, ...]
    """`-o` and `--output`; of an argument its metavar alone."""
    value: str
    """What stands behind the flag: `FILE`, `a|b`; empty for a switch."""
    default: str
    variable: str
    """Of the environment, that stands for it."""
    repeatable: bool
    required: bool
    help: str

    @property
    def document(self) -> dict[str, Any]:
        return {
            "flags": list(self.flags),
            "value": self.value or None,
            "default": self.default or None,
            "environment": self.variable or None,
            "repeatable": self.repeatable,
            "required": self.required,
            "help": self.help,
        }


@dataclass(frozen=True, slots=True)
class Command:
    words: tuple[str, ...]
    """`netctl`, `get`, `peers`."""
    summary: str
    paragraphs: tuple[str, ...]
    """What the help says behind the summary, without exit codes."""
    exit_codes: Mapping[str, str]
    arguments: tuple[Option, ...]
    options: tuple[Option, ...]
    subcommands: tuple[str, ...]

    @property
    def name(self) -> str:
        return " ".join(self.words)

    @property
    def document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "summary": self.summary,
            "description": "\n\n".join(self.paragraphs),
            "exit_codes": dict(self.exit_codes),
            "arguments": [each.document for each in self.arguments],
            "options": [each.document for each in self.options],
            "subcommands": list(self.subcommands),
        }


def all_commands(root: click.Command, words: tuple[str, ...] = ()) -> Iterator[Command]:
    """The command itself, and then all below it, by name."""
    name = (*words, root.name or "")
    below = {key: each for key, each in getattr(root, "commands", {}).items() if not each.hidden}
    yield described(root, name, tuple(sorted(below)))
    for key in sorted(below):
        yield from all_commands(below[key], name)


def described(command: click.Command, words: tuple[str, ...], subcommands: tuple[str, ...]) -> Command:
    summary, *rest = (" ".join(part.split()) for part in PARAGRAPH.split(command.help or ""))
    codes = [part for part in rest if part.startswith(EXIT_STATUS)]
    context = click.Context(command, info_name=" ".join(words))
    parameters = [each for each in command.get_params(context) if not getattr(each, "hidden", False)]
    return Command(
        words,
        summary,
        tuple(part for part in rest if part not in codes),
        exit_codes(codes[0]) if codes else {},
        tuple(argument(each, context) for each in parameters if isinstance(each, click.Argument)),
        tuple(option(each, context) for each in parameters if isinstance(each, click.Option)),
        subcommands,
    )


def exit_codes(paragraph: str) -> dict[str, str]:
    """`Exit code 0: all is well; 1: a finding.` by number."""
    parts = paragraph.removeprefix(EXIT_STATUS).rstrip(".").split("; ")
    return {code: meaning for code, _, meaning in (part.partition(": ") for part in parts)}


def argument(parameter: click.Argument, context: click.Context) -> Option:
    return Option((parameter.make_metavar(context),), "", "", "", parameter.nargs != 1, parameter.required, "")


def option(parameter: click.Option, context: click.Context) -> Option:
    switch = parameter.is_flag or parameter.count
    default = parameter.default if parameter.show_default else ""
    return Option(
        (*parameter.opts, *parameter.secondary_opts),
        "" if switch else parameter.make_metavar(context).strip("[]"),
        str(default) if isinstance(default, str | int | float) and not switch else "",
        parameter.envvar if isinstance(parameter.envvar, str) else "",
        parameter.multiple,
        parameter.required,
        parameter.help or "",
    )
