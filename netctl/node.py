"""Where a command reads what it shows: this node, or a bundle that was taken from one."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from controlloop.client import get_json
from controlloop.command import CommandError, clean_environment, find
from controlloop.runtime import runtime_directory

PROXY = "netproxy"
TIMEOUT_S = 20.0
TIMED_OUT = 124
"""Exit status of timeout(1) when the time was over."""


class Node(Protocol):
    """All that read commands ask of a node. A question is plain text, so that its answer can be kept in a bundle."""

    @property
    def is_live(self) -> bool:
        """Whether it answers now; else it is a record."""

    @property
    def now(self) -> float:
        """When it answers, in seconds since the epoch. Ages count from here."""

    @property
    def daemons(self) -> Sequence[str]:
        """Those that ran since the node started: the agents, one for each overlay, then the proxy."""

    def page(self, daemon: str, page: str) -> Any:
        """One page of the daemon's socket, decoded. UnreachableError when it does not answer."""

    def output(self, *argv: str) -> bytes:
        """What a program prints. CommandError when it fails, is missing or takes too long."""

    def text(self, path: str) -> str:
        """A file. OSError when it cannot be read."""

    def texts(self, pattern: str) -> Mapping[str, str]:
        """The files that a pattern of glob(7) stands for, by path, sorted; without those that cannot be read."""

    def kernel(self, question: str) -> Any:
        """What no program prints: one of netctl.kernel.QUESTIONS. OSError when the kernel refuses to answer."""


class LiveNode:
    """The node, or network namespace, that this process is in."""

    is_live = True

    def __init__(self, run_dir: Path | None = None, root: Path = Path("/")) -> None:
        """`run_dir` has the daemons' sockets; files are looked for below `root`."""
        self._run_dir = run_dir or runtime_directory()
        self._root = root

    @property
    def now(self) -> float:
        return time.time()

    @property
    def daemons(self) -> Sequence[str]:
        agents = sorted(path.stem for path in self._run_dir.glob("netagent*.lock"))
        return [*(agents or ["netagent"]), PROXY]

    def socket(self, daemon: str) -> Path:
        return self._run_dir / f"{daemon}.sock"

    def page(self, daemon: str, page: str) -> Any:
        return get_json(self.socket(daemon), page)

    def output(self, *argv: str) -> bytes:
        try:
            done = subprocess.run(
                [find(argv[0]), *argv[1:]],
                capture_output=True,
                check=False,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                timeout=TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise CommandError(argv, TIMED_OUT, f"no end within {TIMEOUT_S:g} s") from None
        if done.returncode:
            raise CommandError(argv, done.returncode, done.stderr.decode(errors="replace"))
        return done.stdout

    def text(self, path: str) -> str:
        return self._below_root(path).read_text(errors="replace")

    def texts(self, pattern: str) -> Mapping[str, str]:
        found = {}
        for path in sorted(self._root.glob(pattern.lstrip("/"))):
            try:
                found[f"/{path.relative_to(self._root)}"] = path.read_text(errors="replace")
            except OSError:
                continue
        return found

    def kernel(self, question: str) -> Any:
        from netctl.kernel import QUESTIONS  # noqa: PLC0415 - most commands do without

        return QUESTIONS[question]()

    def _below_root(self, path: str) -> Path:
        return self._root / path.lstrip("/")
