"""Starts daemons by fork from a process that has imported them: Python's imports are most of what a start costs.

Each daemon is a process of its own, of its own user, in its host's namespaces; it runs the `main` of the installed
program and has its command line. The server reads one job on each line of its input, answers each with the process id,
and ends with its input. Run as `python -m lab.fork_server`.
"""

import ctypes
import gc
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from signal import SIGKILL
from typing import Self

import msgspec

from lab.enter import enter
from lab.host import Host, daemon_uid
from lab.privileges import become_daemon, prctl

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
ROOM = 4096
"""Bytes for the longest command line of a daemon."""

IMPORTED = (
    *("netagent.__main__", "netagent.daemon", "netagent.links"),
    *("proxy.__main__", "proxy.daemon", "proxy.leftovers", "proxy.config_file", "proxy.command_line"),
    *("controlloop.daemon", "controlloop.kubernetes.kubeconfig", "proxy.sources.etcd", "concurrent.futures.thread"),
)
"""Also what the daemons import only when they need it, which in a lab all do."""


class Job(msgspec.Struct, frozen=True):
    namespace: str
    run_dir: str
    scratch: str
    log: str
    argv: list[str]
    """The daemon's command line; its first word is the path of the installed program."""
    environment: dict[str, str]

    @property
    def program(self) -> str:
        return Path(self.argv[0]).name


class ForkServer:
    """The caller's end of it."""

    def __init__(self) -> None:
        argv = [sys.executable, "-m", "lab.fork_server", str(os.getpid()), "-" * ROOM]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)

    def start(self, host: Host, argv: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        """Gives back the process id; the daemon outlives both the server and the caller."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        places = (host.namespace, str(host.run_dir), str(host.folder / "scratch"), str(log))
        job = Job(*places, list(argv), host.environment(environment))
        self._process.stdin.write(msgspec.json.encode(job) + b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(caller: int) -> None:
    # Whoever builds a killed caller's lab anew must not find a daemon in it that was asked for before.
    prctl(PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() != caller:
        return
    for module in IMPORTED:
        import_module(module)
    share_what_stands()
    for line in sys.stdin.buffer:
        job = msgspec.json.decode(line, type=Job)
        pid = os.fork()
        if pid == 0:
            run(job)
        with suppress(BrokenPipeError):  # the caller was killed; then the input ends as well
            print(pid, flush=True)
        reap()


def share_what_stands() -> None:
    """Keep what was imported out of every later collection, which would copy each page of it to each daemon.

    The daemons unfreeze before they collect (controlloop.memory). Here nothing thaws: with 100 daemons that takes 10 s
    of processor time off their start, and 1 GB off their memory.
    """
    gc.collect()
    gc.freeze()
    gc.unfreeze = lambda: None


def reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def run(job: Job) -> None:
    os.setsid()
    redirect(job.log)
    enter(job.namespace, Path(job.run_dir), Path(job.scratch))()
    os.environ.clear()
    os.environ.update(job.environment)
    show_command_line([sys.executable, *job.argv])
    become_daemon(daemon_uid())
    sys.argv = job.argv
    if job.program == "netagent":
        from netagent.__main__ import main  # noqa: PLC0415
    else:
        from proxy.__main__ import main  # noqa: PLC0415
    main()


def redirect(log: str) -> None:
    for path, flags, numbers in (
        (os.devnull, os.O_RDONLY, (0,)),
        (log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, (1, 2)),
    ):
        handle = os.open(path, flags, 0o644)
        for number in numbers:
            os.dup2(handle, number)
        os.close(handle)


def show_command_line(argv: Sequence[str]) -> None:
    """What `ps` shows: to whoever looks around in the lab each daemon is what it would be on a node.

    The kernel reads it from where it laid the server's own, which was made long enough for this (proc(5)).
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    text = b"".join(word.encode() + b"\0" for word in argv)[: end - start - 1]
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)
    name = ctypes.create_string_buffer(Path(argv[1]).name.encode())
    prctl(PR_SET_NAME, ctypes.addressof(name))


if __name__ == "__main__":
    serve(int(sys.argv[1]))
