"""A node of its own for a benchmark: a namespace with an underlay, an etcd, an agent, and leases of thousands of peers.

Everything is gone afterwards. Needs root.
"""

import asyncio
import base64
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from controlloop.etcd import Etcd

ROOT = Path(__file__).resolve().parents[1]
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
# An etcd on a slow disk would be all there is to see.
MEMORY = "/dev/shm"  # noqa: S108 - a folder of our own in it
PREFIX = "/coreos.com/network"
SETUP = """\
link set lo up
link add eth0 type veth peer name eth1
link set eth1 up
link set eth0 up
address add 192.168.0.1/16 dev eth0
address add 2001:db8::1/64 dev eth0 nodad
route add default via 192.168.0.254
route add default via 2001:db8::fe
"""


@dataclass(frozen=True)
class Peer:
    number: int

    @property
    def _middle(self) -> str:
        return f"{self.number // 250 + 1}.{self.number % 250}"

    @property
    def gateway(self) -> str:
        return f"10.{self._middle}.0"

    @property
    def address(self) -> str:
        return f"192.168.{self.number // 250 + 1}.{self.number % 250 + 1}"

    @property
    def key(self) -> str:
        return f"{PREFIX}/subnets/{self.gateway}-24"

    @property
    def gateway6(self) -> str:
        return f"fd00:6:0:{self.number + 1:x}::"

    @property
    def address6(self) -> str:
        return f"2001:db8::1:{self.number:x}"

    @property
    def dual_key(self) -> str:
        return f"{PREFIX}/subnets/{self.gateway}-24&{self.gateway6}-64"

    @property
    def public_key(self) -> str:
        return base64.b64encode(self.number.to_bytes(32, "big")).decode()

    def dual_lease(self, backend: str) -> bytes:
        """One MAC stands for both devices."""
        data = {
            "vxlan": {"VNI": 1, "VtepMAC": self.mac()},
            "wireguard": {"PublicKey": self.public_key, "Port": 51820},
        }.get(backend)
        value = {"PublicIP": self.address, "PublicIPv6": self.address6, "BackendType": backend}
        return json.dumps(value | {"BackendData": data, "BackendV6Data": data}).encode()

    def mac(self, generation: int = 0) -> str:
        return f"82:00:00:{generation:02x}:{self.number >> 8:02x}:{self.number & 255:02x}"

    def lease(self, generation: int = 0) -> bytes:
        data = {"VNI": 1, "VtepMAC": self.mac(generation)}
        value = {"PublicIP": self.address, "PublicIPv6": None, "BackendType": "vxlan", "BackendData": data}
        return json.dumps(value, separators=(",", ":")).encode()

    def ip_lines(self, verb: str) -> list[str]:
        neighbor = f"lladdr {self.mac()} nud permanent" if verb == "add" else ""
        return [
            f"neigh {verb} {self.gateway} {neighbor} dev flannel.1",
            f"route {verb} {self.gateway}/24 via {self.gateway} dev flannel.1 onlink",
        ]

    def bridge_line(self, verb: str) -> str:
        return f"fdb {verb} {self.mac()} dev flannel.1 dst {self.address}"


@contextmanager
def namespace() -> Iterator[None]:
    """This thread, and whatever it starts, with a network and a /run of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare needs root")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "run", "/run"], check=True)
    batch("ip", SETUP)
    yield


def batch(program: str, lines: str, *, force: bool = False) -> float:
    """Seconds that `ip` or `bridge` needs for a batch."""
    started = time.monotonic()
    argv = [program, *(["-force"] if force else []), "-batch", "-"]
    subprocess.run(argv, input=lines, text=True, check=not force, capture_output=True)
    return time.monotonic() - started


class Agent:
    """A netagent of this tree, started and asked."""

    def __init__(self, folder: Path, etcd_url: str) -> None:
        self._folder, self._url = folder, etcd_url
        self.pid = 0

    def start(self, *flags: str) -> float:
        """Seconds from exec until it says READY=1: all programmed, and read back."""
        runtime = self._folder / "nodenet"
        runtime.mkdir(exist_ok=True)
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = self._folder / "notify"
        path.unlink(missing_ok=True)
        notify.bind(str(path))
        notify.settimeout(60)
        environment = {**os.environ, "NOTIFY_SOCKET": str(path), "RUNTIME_DIRECTORY": str(runtime)}
        argv = [str(Path(sys.executable).with_name("netagent")), "--etcd-endpoints", self._url, "--node-name", "bench"]
        argv += ["--subnet-file", str(self._folder / "subnet.env"), "--healthz-port", "0", *flags]
        started = time.monotonic()
        with (self._folder / "netagent.log").open("ab") as log:
            self._process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, cwd=ROOT)
        self.pid = self._process.pid
        try:
            while b"READY=1" not in notify.recv(4096):
                pass
        except TimeoutError:
            self.stop()
            raise SystemExit((self._folder / "netagent.log").read_text()[-3000:]) from None
        return time.monotonic() - started

    def stop(self) -> float:
        started = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)
        return time.monotonic() - started

    def rss_mb(self) -> float:
        line = next(line for line in Path(f"/proc/{self.pid}/status").read_text().splitlines() if "VmRSS" in line)
        return int(line.split()[1]) / 1024

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Asked seldom: counting thousands of entries takes the kernel's lock, which netagent waits for."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("bench: it did not happen in time")
        time.sleep(0.05)


async def put_all(etcd: Etcd, leases: dict[str, bytes]) -> None:
    pairs = list(leases.items())
    for start in range(0, len(pairs), 50):
        await asyncio.gather(*(etcd.put(key, value) for key, value in pairs[start : start + 50]))
