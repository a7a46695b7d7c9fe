"""A node that answers from a bundle: what was asked then is answered again, word for word."""

import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from controlloop.client import UnreachableError
from controlloop.command import CommandError
from controlloop.errors import OperatorError

MANIFEST = "manifest.json"
LARGEST = 512 * 2**20
"""Bytes, unpacked: a bundle comes from elsewhere."""


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """To one question: the member of the archive that holds it, or why there is none."""

    member: str = ""
    error: str = ""
    status: int = 0
    """With which a program failed."""


class Manifest(msgspec.Struct, frozen=True):
    apiVersion: str  # noqa: N815 - as every document has it
    kind: str
    taken_at: float
    node: str
    daemons: tuple[str, ...]
    answers: Mapping[str, Answer]
    """By question, as page_question, output_question and text_question put it."""


def page_question(daemon: str, page: str) -> str:
    return f"page {daemon} {page}"


def output_question(argv: Sequence[str]) -> str:
    return f"output {' '.join(argv)}"


def text_question(path: str) -> str:
    return f"text {path}"


class BundledNode:
    """A netctl.node.Node of the past. Each member is unpacked when it is asked for."""

    is_live = False

    def __init__(self, path: Path, archive: tarfile.TarFile, manifest: Manifest) -> None:
        self._path = path
        self._archive = archive
        self._manifest = manifest

    @classmethod
    def open(cls, path: Path) -> "BundledNode":
        """OperatorError when it cannot be read, or is no bundle."""
        try:
            archive = tarfile.open(path)  # noqa: SIM115 - open as long as the command runs
            manifest = msgspec.json.decode(unpacked(archive, MANIFEST), type=Manifest)
        except FileNotFoundError as error:
            raise OperatorError(f"--from {path}: {error.strerror}") from None
        except KeyError:
            raise OperatorError(f"--from {path}: has no {MANIFEST}; want a file that `netctl bundle` wrote") from None
        except (OSError, tarfile.TarError, EOFError, msgspec.DecodeError, ValueError) as error:
            raise OperatorError(f"--from {path}: is no bundle: {error}") from None
        return cls(path, archive, manifest)

    @property
    def now(self) -> float:
        return self._manifest.taken_at

    @property
    def daemons(self) -> Sequence[str]:
        return self._manifest.daemons

    def page(self, daemon: str, page: str) -> Any:
        answer = self._answer(page_question(daemon, page))
        if answer.error:
            raise UnreachableError(answer.error)
        return msgspec.json.decode(self._content(answer))

    def output(self, *argv: str) -> bytes:
        answer = self._answer(output_question(argv))
        if answer.error:
            raise CommandError(argv, answer.status, answer.error)
        return self._content(answer)

    def text(self, path: str) -> str:
        answer = self._answer(text_question(path))
        if answer.error:
            raise FileNotFoundError(answer.error)
        return self._content(answer).decode(errors="replace")

    def _answer(self, question: str) -> Answer:
        if (answer := self._manifest.answers.get(question)) is None:
            raise OperatorError(f"--from {self._path}: nobody asked this node for `{question}` when it was taken")
        return answer

    def _content(self, answer: Answer) -> bytes:
        try:
            return unpacked(self._archive, answer.member)
        except (KeyError, OSError, ValueError) as error:
            raise OperatorError(f"--from {self._path}: {answer.member}: {error}") from None


def unpacked(archive: tarfile.TarFile, name: str) -> bytes:
    """KeyError when there is no such file; ValueError when it is too large."""
    member = archive.getmember(name)
    if member.size > LARGEST:
        raise ValueError(f"{name} has {member.size} bytes; at most {LARGEST}")
    file = archive.extractfile(member)
    if file is None:
        raise KeyError(name)
    with file:
        return file.read()
