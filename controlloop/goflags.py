"""Flags as Go's flag package reads them, with environment variables behind them: what a drop-in must understand.

Pure. `-name=value`, `-name value`, with one dash or two; a switch takes a value only behind `=`. A variable counts for
a flag that is not on the command line; an empty one counts as unset. Unlike Go, a bad variable is as wrong as a bad
flag, and an argument that is no flag is not passed over: whatever stands behind it would silently not count.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from controlloop.errors import OperatorError

# What strconv.ParseBool takes.
BOOLS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


class Takes(Enum):
    VALUE = "one value"
    VALUES = "one value each time it is given"
    SWITCH = "true or false"


@dataclass(frozen=True, slots=True)
class Flag:
    name: str
    metavar: str
    """Empty for a switch."""
    default: str
    help: str
    takes: Takes = Takes.VALUE
    from_environment: bool = True


def switch(name: str, default: str, text: str, *, from_environment: bool = True) -> Flag:
    return Flag(name, "", default, text, Takes.SWITCH, from_environment)


def repeated(name: str, metavar: str, text: str) -> Flag:
    return Flag(name, metavar, "", text, Takes.VALUES)


Group = tuple[str, Sequence[Flag]]
"""A heading, and what stands below it in the help."""


@dataclass(frozen=True, slots=True)
class Given:
    """One value, and where it came from: how the operator will look for it."""

    source: str
    text: str

    def refused(self, reason: str) -> OperatorError:
        text = self.text if self.text.strip() else f'"{self.text}"'
        return OperatorError(f"{self.source} {text}: {reason}")


@dataclass(frozen=True, slots=True)
class FlagValues:
    """All flags by name. What was not given has its default."""

    _flags: Mapping[str, Flag]
    _given: Mapping[str, list[Given]] = field(default_factory=dict)

    def one(self, name: str) -> Given:
        """The last one counts."""
        given = self._given.get(name)
        return given[-1] if given else Given(f"--{name}", self._flags[name].default)

    def text(self, name: str) -> str:
        return self.one(name).text

    def many(self, name: str) -> list[Given]:
        return list(self._given.get(name, ()))

    def is_switch(self, name: str) -> bool:
        return self._flags[name].takes is Takes.SWITCH

    def is_on(self, name: str) -> bool:
        return BOOLS[self.one(name).text]

    def number(self, name: str, low: int, high: int) -> int:
        """OperatorError outside of `low` to `high`. Bases as in Go: 0x10, 0b1, 0o17."""
        given = self.one(name)
        try:
            value = int(given.text, 0)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise given.refused(f"want a whole number from {low} to {high}")
        return value


def parse_flags(
    groups: Iterable[Group], argv: Sequence[str], environment: Mapping[str, str], prefix: str
) -> FlagValues:
    """OperatorError names the flag or the variable, and the value."""
    flags = {flag.name: flag for _, members in groups for flag in members}
    given: dict[str, list[Given]] = {}
    for flag, value in _on_command_line(flags, iter(argv)):
        given.setdefault(flag.name, []).append(value)
    for flag in flags.values():
        variable = variable_name(flag.name, prefix)
        text = environment.get(variable, "")
        if text and flag.from_environment and flag.name not in given:
            given[flag.name] = [_checked(flag, Given(variable, text))]
    return FlagValues(flags, given)


def variable_name(flag: str, prefix: str) -> str:
    return prefix + flag.upper().replace("-", "_").replace(".", "_")


def _on_command_line(flags: Mapping[str, Flag], words: Iterator[str]) -> Iterator[tuple[Flag, Given]]:
    for word in words:
        name, equals, text = word.removeprefix("-").removeprefix("-").partition("=")
        if not word.startswith("-") or not name or name[0] == "-":
            raise OperatorError(f'argument "{word}": not a flag (a switch takes its value as --flag=false)')
        if name not in flags:
            raise OperatorError(f"--{name}: no such flag (--help lists all)")
        flag = flags[name]
        if not equals:
            text = "true" if flag.takes is Takes.SWITCH else _next_word(name, words)
        yield flag, _checked(flag, Given(f"--{name}", text))


def _next_word(name: str, words: Iterator[str]) -> str:
    word = next(words, None)
    if word is None:
        raise OperatorError(f"--{name}: needs a value")
    return word


def _checked(flag: Flag, given: Given) -> Given:
    if flag.takes is Takes.SWITCH and given.text not in BOOLS:
        raise given.refused("want true or false")
    return given


def render_help(usage: str, groups: Iterable[Group]) -> str:
    """One line for each flag that has something to say."""
    lines = [usage]
    for heading, members in groups:
        flags = [flag for flag in members if flag.help]
        lines += ["", f"{heading}:"]
        width = max(len(_shown(flag)) for flag in flags)
        lines += [f"  {_shown(flag):<{width}}  {flag.help}{_default(flag)}" for flag in flags]
    return "\n".join(lines) + "\n"


def _shown(flag: Flag) -> str:
    return f"--{flag.name} {flag.metavar}".rstrip()


def _default(flag: Flag) -> str:
    return "" if flag.default in {"", "false"} else f" [{flag.default}]"
