"""One question to a node, in plain words, and where its answer stands in a bundle. Pure."""

import re
import shlex
from typing import NamedTuple

PAGE, OUTPUT, TEXT, TEXTS, KERNEL = "page", "output", "text", "texts", "kernel"
"""How a netctl.node.Node is asked."""
LOG, PROCESS = "log", "process"
"""For people: the last lines of a daemon's log, and what it is as a process."""
FOLDERS = {
    PROCESS: "processes",
    PAGE: "pages",
    OUTPUT: "output",
    TEXT: "files",
    TEXTS: "files",
    KERNEL: "kernel",
    LOG: "logs",
}
UNSPOKEN = re.compile(r"[^\w.,=:+-]+")
LONGEST_NAME = 100
STATUS, METRICS = "/status", "/metrics"
JSON_FLAGS = frozenset({"-j", "-json", "--json"})


class Question(NamedTuple):
    kind: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} {shlex.join(self.words)}"

    @property
    def member(self) -> str:
        """Name of the file in the archive, for people; two questions may have the same."""
        if self.kind in (PAGE, TEXT, TEXTS):
            name = "/".join(UNSPOKEN.sub("_", part) for part in "/".join(self.words).split("/") if part)
        else:
            name = UNSPOKEN.sub("_", " ".join(self.words))[:LONGEST_NAME]
        is_json = self.kind in (TEXTS, KERNEL) or not JSON_FLAGS.isdisjoint(self.words)
        is_json = is_json or (self.kind == PAGE and self.words[1] != METRICS)
        return f"{FOLDERS[self.kind]}/{name}{'.json' if is_json else '' if self.kind == TEXT else '.txt'}"
