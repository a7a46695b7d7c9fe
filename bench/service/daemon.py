"""netproxy of this tree as a process in the benchmark's node, and what it takes of the machine."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.service.network import CLUSTER_CIDR, Network

ROOT = Path(__file__).resolve().parents[2]
ALTERNATIVES = Path("/etc/alternatives")
CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to write rules."""

    name: str
    mode: str
    iptables: str = ""
    """What `update-alternatives --set iptables` would be told; empty: what the host has."""

    def alternatives(self, folder: Path) -> Path | None:
        """A folder to stand in for Debian's links to the chosen programs; None: it may stay."""
        if not self.iptables:
            return None
        folder.mkdir(exist_ok=True)
        chosen = {"iptables": self.iptables, "ip6tables": self.iptables.replace("ip", "ip6", 1)}
        for link in filter(Path.is_symlink, ALTERNATIVES.iterdir()):
            mine = folder / link.name
            mine.unlink(missing_ok=True)
            mine.symlink_to(f"/usr/sbin/{chosen[link.name]}" if link.name in chosen else link.readlink())
        return folder


def stand_in(alternatives: Path | None) -> None:
    """In the child after fork: for this process and what it starts."""
    if alternatives is None:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if (
        libc.unshare(CLONE_NEWNS)
        or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        or libc.mount(bytes(alternatives), bytes(ALTERNATIVES), None, MS_BIND, None)
    ):
        raise OSError(ctypes.get_errno(), f"mount {alternatives}")


NFTABLES = Variant("nftables", "nftables")
IPTABLES_NFT = Variant("iptables-nft", "iptables")
IPTABLES_LEGACY = Variant("iptables-legacy", "iptables", "iptables-legacy")
VARIANTS = (NFTABLES, IPTABLES_NFT, IPTABLES_LEGACY)


class Netproxy:
    def __init__(self, network: Network, variant: Variant, etcd_url: str, prefix: str, folder: Path) -> None:
        self._network, self._variant = network, variant
        self._folder = folder
        self._argv = [
            str(Path(sys.executable).with_name("netproxy")),
            f"--etcd-endpoints={etcd_url}", f"--etcd-prefix={prefix}", f"--proxy-mode={variant.mode}",
            f"--cluster-cidr={CLUSTER_CIDR}", "--hostname-override=bench",
            "--healthz-bind-address=", "--metrics-bind-address=",
        ]  # fmt: skip
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> float:
        """When it was started (monotonic)."""
        folder = self._folder / "nodenet"
        folder.mkdir(exist_ok=True)
        environment = {**os.environ, "RUNTIME_DIRECTORY": str(folder), "XTABLES_LOCKFILE": str(folder / "lock")}
        also = partial(stand_in, self._variant.alternatives(self._folder / "alternatives"))
        started = time.monotonic()
        with (self._folder / "netproxy.log").open("a") as log:
            self._process = self._network.popen(
                "node", self._argv, env=environment, stdout=log, stderr=log, cwd=ROOT, also=also
            )
        return started

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)
            self._process = None

    def cpu_s(self) -> float:
        """Its own, and that of the children that ended."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICKS

    def rss_mb(self) -> float:
        return rss_mb(self.pid)

    @contextmanager
    def peak(self) -> Iterator[Callable[[], tuple[float, float]]]:
        """Watch memory: afterwards gives the most that it took by itself, and with its children together, in MB."""
        most = [0.0, 0.0]
        done = threading.Event()

        def look() -> None:
            while not done.wait(0.02):
                own = rss_mb(self.pid)
                # One that is not yet another program shows the memory of its parent, which it shares.
                children = sum(rss_mb(child) for child in children_of(self.pid) if name_of(child) != name_of(self.pid))
                most[0], most[1] = max(most[0], own), max(most[1], own + children)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield lambda: (most[0], most[1])
        finally:
            done.set()
            thread.join()


def rss_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
