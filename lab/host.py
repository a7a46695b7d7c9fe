"""One host of a lab: a node, a pod, the client, the etcd server. A network namespace in which programs can be run."""

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from lab.enter import enter

DAEMON_USER = "nodenet"
# Where the user is not installed, a number that Debian leaves to nobody (Debian policy 9.2.2: 60000-64999 reserved).
FALLBACK_UID = 64123


class ProgramError(Exception):
    """A program on a lab host failed; the text says where, which, and what it printed."""


def daemon_uid() -> int:
    try:
        return pwd.getpwnam(DAEMON_USER).pw_uid
    except KeyError:
        return FALLBACK_UID


def as_daemon(argv: Sequence[str], capabilities: Sequence[str] = ("net_admin",)) -> list[str]:
    """The command as systemd would run it for our units: own user, the named capabilities and no way to get more."""
    uid = str(daemon_uid())
    granted = "-all," + ",".join(f"+{name}" for name in capabilities)
    limits = [f"--{which}={granted}" for which in ("inh-caps", "ambient-caps", "bounding-set")]
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *limits, "--no-new-privs", *argv]


@dataclass(frozen=True, slots=True)
class Host:
    name: str
    namespace: str
    folder: Path
    """The host's own folder under the lab's state: its /run and its logs."""
    private_run: bool = False
    """Whether /run is the host's own; pods and clients share the machine's."""

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        programs = str(Path(sys.executable).parent)
        path = f"{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        kept = {name: os.environ[name] for name in ("TERM", "HOME", "LANG", "NO_COLOR") if name in os.environ}
        return {**kept, "PATH": path, "NODENET_HOST": self.name, **extra}

    def popen(
        self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        step_in = enter(self.namespace, self.run_dir if self.private_run else None, self.folder / "scratch")
        return subprocess.Popen(
            argv,
            env=self.environment(environment or {}),
            preexec_fn=step_in,  # noqa: PLW1509 - only system calls; see enter.py
            **options,
        )

    def become(self, argv: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
        """Turn this process into a program on the host: signals, terminal and exit code are then the program's own."""
        enter(self.namespace, self.run_dir if self.private_run else None, self.folder / "scratch")()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and a program would inherit that
        os.execvpe(argv[0], tuple(argv), self.environment(environment))  # noqa: S606 - no shell is the point

    def start(self, argv: Sequence[str], log: IO[bytes], environment: Mapping[str, str] | None = None) -> int:
        """Start a program that outlives us; gives back its process id."""
        process = self.popen(
            argv,
            environment=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        # Whoever ends it later knows it by its id and start time; Popen must not complain that it still runs.
        process.returncode = 0
        return process.pid

    def run(self, argv: Sequence[str], *, stdin: str = "", check: bool = True, timeout_s: float = 60.0) -> str:
        """Run a program to its end and give back its stdout; ProgramError when it fails and `check`."""
        with self.popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                stdout, stderr = process.communicate(stdin, timeout=timeout_s)
            except BaseException:
                process.kill()
                raise
        if check and process.returncode:
            raise ProgramError(f"on {self.name}: {' '.join(argv)} failed ({process.returncode}): {stderr.strip()}")
        return str(stdout)

    def succeeds(self, argv: Sequence[str]) -> bool:
        try:
            self.run(argv)
        except ProgramError:
            return False
        return True
