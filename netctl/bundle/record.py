"""What a node said, question by question; a bundle is this in an archive. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from controlloop import __version__
from netctl.bundle.question import Question
from netctl.output import API_VERSION

FOLDER = "nodenet-bundle"
MANIFEST = f"{FOLDER}/manifest.json"
KIND = "Bundle"


class Answer(msgspec.Struct, frozen=True):
    """As the manifest has it: the archive's member that holds it, or why there is none."""

    member: str = ""
    error: str = ""
    status: int = 0
    """With which a program failed, or the number of the system's error."""


class Manifest(msgspec.Struct, frozen=True):
    apiVersion: str  # noqa: N815 - as every document has it
    kind: str
    version: str
    """Of netctl."""
    taken_at: float
    """When the collecting began, in seconds since the epoch."""
    took_s: float
    node: str
    """Empty where no daemon said its name."""
    daemons: tuple[str, ...]
    answers: Mapping[str, Answer]
    """By question."""


@dataclass(frozen=True, slots=True)
class Said:
    """What became of one question."""

    content: bytes = b""
    error: str = ""
    status: int = 0


@dataclass(slots=True)
class Record:
    taken_at: float
    daemons: tuple[str, ...]
    said: dict[Question, Said] = field(default_factory=dict)
    took_s: float = 0.0
    node: str = ""

    @property
    def silent(self) -> list[Question]:
        """What was asked in vain."""
        return [question for question, said in self.said.items() if said.error]

    def members(self) -> Iterator[tuple[str, bytes]]:
        """Names and contents for an archive, the manifest first: small members are found without reading the large."""
        answered = sorted(
            (q for q, said in self.said.items() if not said.error), key=lambda q: len(self.said[q].content)
        )
        names = dict(zip(answered, distinct([f"{FOLDER}/{question.member}" for question in answered]), strict=True))
        answers = {str(q): Answer(names.get(q, ""), said.error, said.status) for q, said in self.said.items()}
        manifest = Manifest(
            API_VERSION, KIND, __version__, self.taken_at, self.took_s, self.node, self.daemons, answers
        )
        yield MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        yield from ((name, self.said[question].content) for question, name in names.items())


def distinct(names: list[str]) -> list[str]:
    """The same names, with a number behind those that come again."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(f"{name}.{seen[name]}" if seen[name] > 1 else name)
    return found
