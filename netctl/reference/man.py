"""Man pages, one for each command, as man(7) wants them. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping

from netctl.reference.commands import Command, Option

SECTION = "1"
QUOTED = re.compile(r"`([^`]+)`")
EXIT_CODES = {
    "0": "All is well.",
    "1": "A finding: something is wrong, has drifted or would be dropped.",
    "2": "Wrong usage; one line names the option and its value.",
    "3": "A daemon or the store does not answer, so the answer is incomplete.",
    "4": "Not within the given time.",
    "5": "Not allowed.",
    "130": "Interrupted.",
}
"""What they mean where a command says nothing more exact."""


def page_name(words: Iterable[str]) -> str:
    """As git has it: `netctl-get-peers`."""
    return "-".join(words)


def man_page(command: Command, version: str) -> str:
    return "\n".join(lines(command, version)) + "\n"


def lines(command: Command, version: str) -> Iterator[str]:
    name = page_name(command.words)
    yield f'.TH {name.upper()} {SECTION} "" "nodenet {version}" "nodenet"'
    yield ".SH NAME"
    yield f"{plain(name)} \\- {plain(command.summary.rstrip('.'))}"
    yield ".SH SYNOPSIS"
    yield f".B {plain(command.name)}"
    yield plain(" ".join(["[OPTION]...", *(each.flags[0] for each in command.arguments)]))
    yield ".SH DESCRIPTION"
    yield text(command.summary)
    for paragraph in command.paragraphs:
        yield ".PP"
        yield text(paragraph)
    if command.subcommands:
        yield ".SH COMMANDS"
        yield from (f".TP\n.BR {plain(page_name((*command.words, each)))} ({SECTION})" for each in command.subcommands)
    yield ".SH OPTIONS"
    for each in command.options:
        yield from option_lines(each)
    yield from exit_lines(command.exit_codes)
    yield from variable_lines(command.options)
    if above := command.words[:-1]:
        yield ".SH SEE ALSO"
        yield f".BR {plain(page_name(above))} ({SECTION})"


def option_lines(option: Option) -> Iterator[str]:
    value = f" \\fI{plain(option.value)}\\fR" if option.value else ""
    yield ".TP"
    yield ", ".join(f"\\fB{plain(flag)}\\fR" for flag in option.flags) + value
    default = f" Default: {option.default}." if option.default else ""
    again = " May be given more than once." if option.repeatable else ""
    yield text(f"{option.help}{default}{again}".strip() or "See the description.")


def exit_lines(special: Mapping[str, str]) -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, meaning in {**EXIT_CODES, **special}.items():
        yield f".TP\n.B {code}"
        yield text(meaning[:1].upper() + meaning[1:].rstrip(".") + ".")


def variable_lines(options: Iterable[Option]) -> Iterator[str]:
    known = {option.variable: option for option in options if option.variable}
    yield ".SH ENVIRONMENT"
    for variable, option in known.items():
        yield f".TP\n.B {plain(variable)}"
        yield text(f"Stands for {option.flags[-1]}.")
    yield ".TP\n.B NO_COLOR"
    yield "Any value: no colours, as on everything that is no terminal."


def text(line: str) -> str:
    """A line that begins with a dot or a quote would be a request."""
    return ("\\&" if line[:1] in (".", "'") else "") + QUOTED.sub(r"\\fB\1\\fR", plain(line))


def plain(line: str) -> str:
    """Hyphens stay hyphens, so that a flag can be copied."""
    return line.replace("\\", "\\e").replace("-", "\\-")
