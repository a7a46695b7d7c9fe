"""A node that systemd runs: PID 1 in namespaces of its own, on a copy of this machine's files that is forgotten.

Nothing leaves it: its network has a loopback and a cable to itself, its files are an overlay in memory, its cgroup is
below one that is removed behind it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE = Path(__file__).resolve().parents[1]
CGROUPS = Path("/sys/fs/cgroup")
HIERARCHIES = ("systemd", "unified", "cpu", "cpuacct", "blkio", "memory", "devices", "freezer", "pids")
"""Of cgroup v1, as far as systemd manages them: in each it gets a place of its own below that of this process."""
NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts", "--cgroup")
UNWANTED = ("systemd-udevd", "systemd-udev-trigger", "systemd-networkd", "systemd-logind", "dbus", "etcd")
BOOT = """
mount --make-rprivate /
mount -t tmpfs -o size=2g tmpfs {folder}
mkdir {folder}/upper {folder}/work {folder}/root
mount -t overlay overlay -o lowerdir=/,upperdir={folder}/upper,workdir={folder}/work {folder}/root
cd {folder}/root
mount -t proc proc proc
mount -t sysfs sysfs sys
for path in run dev sys/fs/cgroup; do mount -t tmpfs -o mode=755 tmpfs $path; done
mount -t tmpfs tmpfs tmp
mkdir dev/pts dev/shm dev/net
for name in null zero full random urandom tty; do
    touch dev/$name
    mount --bind /dev/$name dev/$name
done
mknod -m 666 dev/net/tun c 10 200
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
: > etc/machine-id
rm -rf etc/fstab etc/systemd/system/*.wants
ln -sf /lib/systemd/system/multi-user.target etc/systemd/system/default.target
for unit in {unwanted}; do ln -sf /dev/null etc/systemd/system/$unit.service; done
hostname node-under-systemd
ip link set lo up
ip link add eth0 type veth peer name cable
ip link set cable up
ip addr add 10.10.0.1/16 dev eth0
ip link set eth0 up
ip route add default via 10.10.255.254
exec chroot . env -i container=unshare PATH={path} /lib/systemd/systemd --system
"""
PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing() -> str:
    """What such a node lacks on this machine; empty when nothing."""
    if os.geteuid() != 0:
        return "root"
    if not Path("/lib/systemd/systemd").exists():
        return "systemd"
    return "" if (CGROUPS / "systemd").is_dir() else f"{CGROUPS}/systemd (cgroup v1)"


def own_cgroups() -> Iterator[Path]:
    """The place of this process in each hierarchy (cgroups(7): ID:CONTROLLERS:PATH)."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in names.removeprefix("name=").split(",") if names else ["unified"]:
            if name in HIERARCHIES and (CGROUPS / name).is_dir():
                yield CGROUPS / name / path.removeprefix("/")


@contextmanager
def booted(folder: Path) -> Iterator["SystemdNode"]:
    node = SystemdNode(folder)
    try:
        node.eventually(lambda: node.systemctl("is-system-running") in ("running", "degraded"), "booted")
        yield node
    finally:
        node.close()


class SystemdNode:
    """Starts at once; `close` ends all that runs there."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        name = f"nodenet-test-{os.getpid()}-{time.monotonic_ns()}"
        self._cgroups = [place / name for place in own_cgroups()]
        for cgroup in self._cgroups:
            cgroup.mkdir()
        boot = BOOT.format(folder=folder, unwanted=" ".join(UNWANTED), path=PATH)
        # In its cgroups before it has a view of its own on them: systemd makes what it wants below.
        moves = "\n".join(f"echo $$ > {cgroup}/cgroup.procs" for cgroup in self._cgroups)
        script = f"{moves}\nexec unshare {' '.join(NAMESPACES)} sh -ec '{boot}'"
        self._log = (folder.parent / "boot.log").open("wb")
        self._outer = subprocess.Popen(
            ["sh", "-ec", script], stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL
        )

    def close(self) -> None:
        self._outer.send_signal(signal.SIGKILL)
        self._outer.wait()
        self._log.close()
        self.eventually(self._is_swept, "left")

    def _is_swept(self) -> bool:
        try:
            for cgroup in (each for each in self._cgroups if each.exists()):
                folders = [path for path in cgroup.rglob("*") if path.is_dir()]
                for path in sorted(folders, key=lambda each: -len(each.parts)):
                    path.rmdir()
                cgroup.rmdir()
        except OSError:
            return False
        return True

    @property
    def _init(self) -> int:
        """0 while there is none."""
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def run(self, script: str, *, check: bool = True) -> str:
        """A shell's output there."""
        inside = ["nsenter", "-t", str(self._init), "-m", "-p", "-n", "-i", "-u", "-C", "-r", "-w"]
        argv = [*inside, "env", "-i", f"PATH={PATH}", "HOME=/root", "sh", "-ec", script]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=240)
        assert not (check and done.returncode), f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def systemctl(self, *argv: str) -> str:
        return self.run(f"systemctl {' '.join(argv)} 2>/dev/null", check=False).strip() if self._init else ""

    def show(self, unit: str, name: str) -> str:
        return self.systemctl("show", unit, "--value", "--property", name)

    def install_packages(self) -> str:
        """Instead of asking a registry: what the clone's own environment holds, and the clone as a wheel."""
        site = next(Path(sys.prefix).glob("lib/python3*/site-packages"))
        return f"""
            cp -r {site}/. /usr/lib/nodenet/lib/python3*/site-packages/
            {sys.executable} -m pip wheel -qq --no-deps --no-build-isolation --no-index -w /tmp/wheel {CLONE}
            /usr/lib/nodenet/bin/pip install -qq --no-index --no-deps --force-reinstall /tmp/wheel/*.whl
        """

    def eventually(self, condition, what: str, timeout_s: float = 120.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not {what} after {timeout_s:g} s: {self.journal()}"
            time.sleep(0.05)

    def journal(self) -> str:
        return self.run("journalctl --no-pager -n 40", check=False) if self._init else self._log.name
