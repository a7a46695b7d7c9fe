"""Asks a node everything, many questions at once, and keeps the answers without their secrets."""

import os
import socket
import stat
import string
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from controlloop.client import UnreachableError, get
from controlloop.command import CommandError
from netctl.bundle.question import KERNEL, LOG, OUTPUT, PAGE, PROCESS, STATUS, TEXT, TEXTS, Question
from netctl.bundle.questions import (
    LEGACY_NAMES,
    NFT_TABLES,
    SAVED,
    first_questions,
    legacy_questions,
    mixed_questions,
    questions,
    table_questions,
)
from netctl.bundle.record import Record, Said
from netctl.bundle.secrets import masked
from netctl.node import LiveNode

AT_ONCE = 16
"""Most of them wait for a program or a daemon."""
PAGE_TIMEOUT_S = 4.0
LOG_LINES = 2000
LOG_BYTES = 400 * 1024
LONGEST_TEXT = 2**20
PROCESS_FILES = ("cmdline", "status", "limits", "cgroup")
CREDENTIALS = struct.Struct("=iII")
"""struct ucred: process, user, group (unix(7))."""

Progress = Callable[[int, int], None]


def collected(node: LiveNode, progress: Progress) -> Record:
    """`progress` is told how many answers there are, and of how many questions."""
    began = time.monotonic()
    record = Record(node.now, tuple(node.daemons))
    with ThreadPoolExecutor(AT_ONCE) as threads:

        def ask(*asked: Question) -> None:
            answers = zip(asked, threads.map(partial(said, node), asked), strict=True)
            for number, (question, answer) in enumerate(answers, 1):
                record.said[question] = answer
                progress(number, len(asked))

        ask(*first_questions())
        large = (*legacy_questions(texts_of(record, LEGACY_NAMES.values())), *table_questions(tables(record)))
        # What takes long goes first.
        ask(*large, *questions(record.daemons))
        ask(*mixed_questions(outputs_of(record)))
    record.took_s = round(time.monotonic() - began, 3)
    record.node = name_of_node(record)
    return record


# -- one question -----------------------------------------------------------------------------------------------------


def said(node: LiveNode, question: Question) -> Said:
    """Whatever goes wrong is an answer, too: one silent source must not cost the others theirs."""
    try:
        return Said(content(node, question))
    except CommandError as error:
        return Said(error=masked(error.stderr.encode()).decode(errors="replace").strip(), status=error.returncode)
    except UnreachableError as error:
        return Said(error=str(error))
    except OSError as error:
        return Said(error=error.strerror or str(error), status=error.errno or 0)


def content(node: LiveNode, question: Question) -> bytes:
    """Without its secrets."""
    ask = ASK[question.kind]
    return ask(node, question.words) if question.kind in (TEXTS, KERNEL) else masked(ask(node, question.words))


def texts(node: LiveNode, words: Sequence[str]) -> bytes:
    """Masked one by one: in JSON, lines would not be lines."""
    found = node.texts(words[0]).items()
    return msgspec.json.encode({path: masked_text(text[:LONGEST_TEXT]) for path, text in found})


def masked_text(text: str) -> str:
    return masked(text.encode()).decode(errors="replace")


def log(node: LiveNode, words: Sequence[str]) -> bytes:
    """Its last lines: of the file that it writes to, else of the journal."""
    (daemon,) = words
    try:
        errors = Path(f"/proc/{process_id(node.socket(daemon))}/fd/2")
        if stat.S_ISREG(errors.stat().st_mode):
            return last_bytes(errors)
    except OSError:
        pass  # it does not run, or is somebody else's: the journal may know
    # All instances of it: journalctl takes patterns.
    unit = f"{daemon.rstrip(string.digits)}*"
    return node.output("journalctl", f"--unit={unit}", f"--lines={LOG_LINES}", "--no-pager", "--output=short-iso")


def last_bytes(path: Path) -> bytes:
    """Whole lines."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_BYTES))
        text = file.read(LOG_BYTES)
    return text if size <= LOG_BYTES else text.partition(b"\n")[2]


def process(node: LiveNode, words: Sequence[str]) -> bytes:
    """Its command line, limits and state; not its environment, where passwords are kept."""
    folder = Path(f"/proc/{process_id(node.socket(words[0]))}")
    parts = ((name, (folder / name).read_bytes().strip(b"\0\n")) for name in PROCESS_FILES)
    return b"".join(b"# %s\n%s\n\n" % (name.encode(), text) for name, text in parts)


def process_id(path: Path) -> int:
    """Of who listens on a unix socket. OSError when nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PAGE_TIMEOUT_S)
        connection.connect(str(path))
        found: tuple[int, int, int] = CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        )
    return found[0]


ASK: Mapping[str, Callable[[LiveNode, Sequence[str]], bytes]] = {
    PAGE: lambda node, words: get(node.socket(words[0]), words[1], PAGE_TIMEOUT_S),
    OUTPUT: lambda node, words: node.output(*words),
    TEXT: lambda node, words: node.text(words[0]).encode(),
    TEXTS: texts,
    KERNEL: lambda node, words: msgspec.json.encode(node.kernel(words[0])),
    LOG: log,
    PROCESS: process,
}

# -- answers on which others depend -----------------------------------------------------------------------------------


def texts_of(record: Record, paths: Iterable[str]) -> dict[str, str]:
    return {path: record.said[Question(TEXT, (path,))].content.decode(errors="replace") for path in paths}


def outputs_of(record: Record) -> dict[str, str]:
    """What iptables prints, by program."""
    return {name: record.said[Question(OUTPUT, argv)].content.decode(errors="replace") for name, argv in SAVED.items()}


def tables(record: Record) -> str:
    return record.said[Question(OUTPUT, NFT_TABLES)].content.decode(errors="replace")


def name_of_node(record: Record) -> str:
    """As the first daemon that answers calls it."""
    for daemon in record.daemons:
        answer = record.said[Question(PAGE, (daemon, STATUS))]
        with suppress(msgspec.DecodeError, LookupError, TypeError):
            return str(msgspec.json.decode(answer.content)["node"])
    return ""
