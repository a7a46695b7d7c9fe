"""The shape of what a program of ours owns in iptables.

Pure. The state of one family is a mapping (table, chain) -> rules; a rule is the text after `-A CHAIN ` exactly as
iptables-save prints it, so that reading back compares text. Of a chain that is not ours (PREROUTING, INPUT, ...) the
state holds only the rules that jump to ours.
"""

import re
from dataclasses import dataclass
from functools import cached_property

Key = tuple[str, str]
Rules = tuple[str, ...]


@dataclass(frozen=True)
class Owned:
    """Whose chains: those with names that begin so."""

    prefixes: tuple[str, ...]
    jumps_first: bool = True
    """Whether our jumps go to the head of a foreign chain, or to its end."""
    tables: tuple[str, ...] = ("nat", "filter")
    """Where our chains are; others are not read, for in iptables-legacy that alone would set a table up."""

    def is_ours(self, chain: str) -> bool:
        return chain.startswith(self.prefixes)

    def jumps_to_ours(self, rule: str) -> bool:
        """A jump is the last word of a rule; a quoted comment that looks like one ends in a quote."""
        return self._jump.search(rule) is not None

    @cached_property
    def _jump(self) -> re.Pattern[str]:
        return re.compile(rf"-[jg] (?:{'|'.join(map(re.escape, self.prefixes))})[\w./-]*$", re.ASCII)
