"""A node that answers from a bundle: what was asked then is answered again, word for word."""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from controlloop.client import UnreachableError
from controlloop.command import CommandError
from controlloop.errors import OperatorError
from netctl.bundle import narrower
from netctl.bundle.archive import Archive, BadArchiveError
from netctl.bundle.question import KERNEL, OUTPUT, PAGE, TEXT, TEXTS, Question
from netctl.bundle.record import KIND, MANIFEST, Answer, Manifest
from netctl.node import PROXY
from netctl.output import API_VERSION

LISTED_TABLE = "output nft -j list table "


class BundledNode:
    """A netctl.node.Node of the past. Each member is unpacked, in memory, when it is asked for."""

    is_live = False

    def __init__(self, path: Path, archive: Archive, manifest: Manifest) -> None:
        self._path = path
        self._archive = archive
        self._manifest = manifest

    @classmethod
    def open(cls, path: Path) -> "BundledNode":
        """OperatorError when it cannot be read, or is no bundle."""
        try:
            archive = Archive(path)
            manifest = msgspec.json.decode(archive.read(MANIFEST), type=Manifest)
        except OSError as error:
            raise OperatorError(f"--from {path}: {error.strerror}") from None
        except KeyError:
            raise OperatorError(f"--from {path}: has no {MANIFEST}; want a file that `netctl bundle` wrote") from None
        except (BadArchiveError, msgspec.DecodeError) as error:
            raise OperatorError(f"--from {path}: is no bundle: {error}") from None
        if (manifest.apiVersion, manifest.kind) != (API_VERSION, KIND):
            what = f"{manifest.apiVersion} {manifest.kind}"
            raise OperatorError(f"--from {path}: is a {what!r}; this netctl reads {API_VERSION} {KIND}")
        return cls(path, archive, manifest)

    @property
    def now(self) -> float:
        return self._manifest.taken_at

    @property
    def daemons(self) -> Sequence[str]:
        return self._manifest.daemons

    def page(self, daemon: str, page: str) -> Any:
        if daemon == PROXY and (pick := narrower.frontend_picker(page)):
            listed = self.page(daemon, narrower.EVERY_FRONTEND)
            return {**listed, "items": [item for item in listed["items"] if pick(item)]}
        question = Question(PAGE, (daemon, page))
        answer = self._answer(question)
        if answer.error:
            raise UnreachableError(answer.error)
        return self._decoded(answer)

    def output(self, *argv: str) -> bytes:
        question = Question(OUTPUT, argv)
        if str(question) not in self._manifest.answers:
            if narrower.is_of_nft(argv):
                return self._nft(argv)
            if wider := narrower.with_counters(argv):
                return narrower.without_counters(self.output(*wider))
        answer = self._answer(question)
        if answer.error:
            raise CommandError(argv, answer.status, answer.error)
        return self._content(answer)

    def text(self, path: str) -> str:
        answer = self._answer(Question(TEXT, (path,)))
        if answer.error:
            raise OSError(answer.status, os.strerror(answer.status), path)
        return self._content(answer).decode(errors="replace")

    def texts(self, pattern: str) -> Mapping[str, str]:
        found: Mapping[str, str] = self._decoded(self._answer(Question(TEXTS, (pattern,))))
        return found

    def kernel(self, question: str) -> Any:
        answer = self._answer(Question(KERNEL, (question,)))
        if answer.error:
            raise OSError(answer.status, answer.error)
        return self._decoded(answer)

    # -- the archive ----------------------------------------------------------------------------------------------

    def _nft(self, argv: Sequence[str]) -> bytes:
        try:
            return msgspec.json.encode({"nftables": narrower.nft_listing(argv, self._tables)})
        except KeyError:
            raise CommandError(argv, 1, "Error: No such file or directory") from None

    @cached_property
    def _tables(self) -> Sequence[Mapping[str, Any]]:
        """The entries of all tables of nftables that were listed. CommandError when one of them could not be."""
        found: list[Mapping[str, Any]] = []
        for question, answer in self._manifest.answers.items():
            if not question.startswith(LISTED_TABLE):
                continue
            if answer.error:
                raise CommandError(question.split()[1:], answer.status, answer.error)
            found += (entry for entry in self._decoded(answer)["nftables"] if "metainfo" not in entry)
        return found

    def _answer(self, question: Question) -> Answer:
        if (answer := self._manifest.answers.get(str(question))) is None:
            raise OperatorError(f"--from {self._path}: nobody asked this node for `{question}` when it was taken")
        return answer

    def _content(self, answer: Answer) -> bytes:
        try:
            return self._archive.read(answer.member)
        except KeyError:
            raise OperatorError(f"--from {self._path}: {answer.member} is missing") from None
        except BadArchiveError as error:
            raise OperatorError(f"--from {self._path}: is damaged: {error}") from None

    def _decoded(self, answer: Answer) -> Any:
        try:
            return msgspec.json.decode(self._content(answer))
        except msgspec.DecodeError as error:
            raise OperatorError(f"--from {self._path}: {answer.member} is damaged: {error}") from None
