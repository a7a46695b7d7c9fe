"""Steps into a lab host between fork and exec: its network namespace, and a private view of the file system.

Each host has a /run of its own, so that daemons, plugins and tools use their real paths. Everything here runs in the
child after fork: only system calls, prepared beforehand.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_BIND, MS_REC, MS_SLAVE = 0x1000, 0x4000, 0x80000

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    arguments = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    check(libc.mount(*arguments), f"mount {source} on {target}")


def bind(source: Path, target: Path) -> None:
    mount(str(source), str(target), "none", MS_BIND | MS_REC)


def unreadable_ancestor(path: Path) -> Path | None:
    """The topmost folder above `path` that other users may not pass through."""
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & 0o001:
            return folder
    return None


def program_folders() -> Iterator[Path]:
    """Where the running Python and this code live."""
    yield Path(sys.base_prefix).resolve()
    yield Path(sys.prefix).resolve()
    yield Path(__file__).resolve().parent.parent


def enter(network_namespace: str, run_dir: Path | None, scratch: Path) -> Callable[[], None]:
    """A function for `preexec_fn`: moves the child into the namespace, and `run_dir` to /run if there is one.

    Folders that hold our programs but are closed to other users are opened up inside the child's own view, through
    empty folders under `scratch`: the daemons run as a user who may not read root's home.
    """
    hidden = hidden_folders(scratch)

    def step_in() -> None:
        with open(f"/run/netns/{network_namespace}") as handle:  # noqa: PTH123 - a child after fork: plain calls only
            check(libc.setns(handle.fileno(), CLONE_NEWNET), f"setns {network_namespace}")
        if run_dir is None:
            return
        own_view()
        reveal(hidden, scratch)
        bind(Path("/run/netns"), run_dir / "netns")
        bind(run_dir, Path("/run"))

    return step_in


@contextmanager
def inside(network_namespace: str) -> Iterator[None]:
    """Puts this thread into the namespace, and back: for what is one system call and no program."""
    with Path("/proc/thread-self/ns/net").open() as home, Path("/run/netns", network_namespace).open() as there:
        check(libc.setns(there.fileno(), CLONE_NEWNET), f"setns {network_namespace}")
        try:
            yield
        finally:
            check(libc.setns(home.fileno(), CLONE_NEWNET), "setns back")


def opened_up(scratch: Path) -> Callable[[], None]:
    """A function for `preexec_fn`: the child stays where it is, but whoever it becomes can read our programs."""
    hidden = hidden_folders(scratch)

    def step_aside() -> None:
        own_view()
        reveal(hidden, scratch)

    return step_aside


def hidden_folders(scratch: Path) -> list[tuple[Path, Path]]:
    """Folders with our programs that are closed to other users, each with what closes it; makes room to reveal them."""
    hidden = [(folder, above) for folder in program_folders() if (above := unreadable_ancestor(folder))]
    for number in range(len(hidden)):
        (scratch / str(number)).mkdir(parents=True, exist_ok=True)
    return hidden


def own_view() -> None:
    check(libc.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", "none", MS_REC | MS_SLAVE)


def reveal(hidden: list[tuple[Path, Path]], scratch: Path) -> None:
    for number, (folder, _) in enumerate(hidden):
        bind(folder, scratch / str(number))
    for above in {above for _, above in hidden}:
        mount("tmpfs", str(above), "tmpfs", 0, "mode=755")
    for number, (folder, _) in enumerate(hidden):
        folder.mkdir(parents=True, exist_ok=True)
        bind(scratch / str(number), folder)
