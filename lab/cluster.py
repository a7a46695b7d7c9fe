"""A whole cluster: brought up step by step, taken down to the last trace, also by somebody else after a crash.

Everything a lab leaves outside its processes stands in one folder under STATE_DIR and in namespaces with its name.
The state file is written before each step that must be undone, so that any later process can take the lab down.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from ipaddress import IPv4Address
from pathlib import Path
from signal import Signals
from typing import Any

import msgspec

from lab.etcd import START_TIMEOUT_S as ETCD_TIMEOUT_S
from lab.etcd import etcd_argv, health_argv
from lab.fork_server import ForkServer
from lab.host import Host, as_daemon, daemon_uid
from lab.pods import add_pod, add_pods
from lab.processes import Process, end, identify, kill, send, wait_for_end
from lab.ready import ReadyListener, Waited, tail, wait_for_all
from lab.topology import ETCD_ADDRESS, ETCD_URL, POD_NETWORK, Spec
from lab.wiring import existing_namespaces, unwire, wire

STATE_DIR = Path("/run/nodenet-lab")
NETWORK_CONFIG = {"Network": str(POD_NETWORK), "Backend": {"Type": "vxlan"}}
NETWORK_CONFIG_KEY = "/coreos.com/network/config"
SUBNETS_KEY = "/coreos.com/network/subnets"
START_TIMEOUT_S = 60.0
PODS_AT_ONCE = 25
NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")

Progress = Callable[[str], None]


class LabError(Exception):
    """The lab cannot do that; one line says why."""


class State(msgspec.Struct):
    spec: Spec
    owner: Process | None = None
    """The process the lab lives with; None for a lab that stays up by itself."""
    processes: list[Process] = []
    pods: dict[str, str] = {}
    """Address by pod."""
    faults: dict[str, str] = {}
    """What is broken, and on which host."""


class Cluster:
    def __init__(self, folder: Path, state: State) -> None:
        self.folder = folder
        self.spec = state.spec
        self._state = state

    # -- finding hosts --------------------------------------------------------------------------------------------

    def host(self, name: str) -> Host:
        if name not in self.spec.hosts:
            raise LabError(f"lab {self.spec.name} has no host {name!r}; it has {', '.join(self.spec.hosts)}")
        return Host(name, self.spec.namespace(name), self.folder / name, private_run=name in self.spec.node_names)

    @property
    def nodes(self) -> list[Host]:
        return [self.host(name) for name in self.spec.node_names]

    @property
    def pods(self) -> list[Host]:
        return [self.host(pod) for _, pod in self.spec.all_pods]

    def pod_address(self, pod: str) -> IPv4Address:
        return IPv4Address(self._state.pods[pod])

    @property
    def etcd_option(self) -> list[str]:
        """How tools on a node find the lab's etcd."""
        return ["--etcd-endpoints", ETCD_URL]

    @property
    def processes(self) -> Sequence[Process]:
        return self._state.processes

    # -- up -------------------------------------------------------------------------------------------------------

    def build(self, progress: Progress) -> None:
        # It imports while the hosts are laid out.
        with ForkServer() as server:
            progress("wiring namespaces")
            self.lay_out()
            progress("starting etcd")
            self.start_etcd()
            self.put(NETWORK_CONFIG_KEY, msgspec.json.encode(NETWORK_CONFIG).decode())
            step = f"starting netagent and netproxy on {self.spec.nodes} nodes"
            progress(step)
            daemons = [(node.name, program) for program in ("netagent", "netproxy") for node in self.nodes]
            self.start_daemons(daemons, lambda ready: progress(f"{step}: {ready} of {len(daemons)} ready"), server)
        self.attach_pods(progress)

    def lay_out(self) -> None:
        """Hosts and cables, with nothing running."""
        for name in self.spec.hosts:
            self._make_folder(self.host(name))
        wire(self.spec)

    def attach_pod(self, node: str, pod: str) -> None:
        self._state.pods[pod] = str(add_pod(self.host(node), self.host(pod)))
        self.save()

    def attach_pods(self, progress: Progress) -> None:
        """A few at a time, and those of one node one after the other, so that their addresses are in their order."""
        for number in range(self.spec.pods_per_node):
            round_ = [(node, self.host(self.spec.pod_names(node.name)[number])) for node in self.nodes]
            for start in range(0, len(round_), PODS_AT_ONCE):
                progress(f"attaching {len(self.pods)} pods: {len(self._state.pods)} done")
                added = add_pods(round_[start : start + PODS_AT_ONCE])
                self._state.pods |= {pod.name: str(address) for pod, address in added.items()}
        self.save()

    def _make_folder(self, host: Host) -> None:
        """The host's /run, with what systemd would make there for the daemons (RuntimeDirectory=)."""
        host.folder.mkdir(mode=0o755)
        if not host.private_run:
            return
        for folder in ("netns", "nodenet", "flannel"):
            (host.run_dir / folder).mkdir(mode=0o755, parents=True)
        for folder in ("nodenet", "flannel"):
            os.chown(host.run_dir / folder, daemon_uid(), daemon_uid())

    def start_etcd(self) -> None:
        host = self.host("etcd")
        peer_url = f"http://{ETCD_ADDRESS}:2380"
        process = self.start(host, "etcd", etcd_argv(host.folder, client_url=ETCD_URL, peer_url=peer_url))
        deadline = time.monotonic() + ETCD_TIMEOUT_S
        while not host.succeeds(health_argv(ETCD_URL)):
            if time.monotonic() > deadline or not process.is_alive():
                raise LabError(f"etcd did not start:\n{tail(self.log_of('etcd', 'etcd'))}")

    def put(self, key: str, value: str) -> None:
        self.host("etcd").run(["etcdctl", "--endpoints", ETCD_URL, "put", key, value])

    def leases(self) -> dict[str, Any]:
        """The leases as they stand in etcd: value by key (`10.244.7.0-24`)."""
        listing = self.host("etcd").run(["etcdctl", "--endpoints", ETCD_URL, "get", "--prefix", f"{SUBNETS_KEY}/"])
        lines = listing.splitlines()
        keys = (key.removeprefix(f"{SUBNETS_KEY}/") for key in lines[::2])
        return dict(zip(keys, map(msgspec.json.decode, lines[1::2]), strict=True))

    # -- daemons --------------------------------------------------------------------------------------------------

    def daemon_argv(self, node: str, program: str) -> list[str]:
        executable = str(Path(sys.executable).parent / program)
        if program == "netagent":
            own = ["--node-name", node]
        else:
            own = ["--source", "etcd", "--hostname-override", node, "--cluster-cidr", str(POD_NETWORK)]
            own += ["--proxy-mode", self.spec.mode, "--balance", self.spec.balance]
        return as_daemon([executable, "--etcd-endpoints", ETCD_URL, *own])

    def start_daemons(
        self,
        which: Sequence[tuple[str, str]],
        told: Callable[[int], None] = lambda _: None,
        server: ForkServer | None = None,
    ) -> None:
        """Start (node, program) pairs all at once and wait until every one is ready; `told` hears how many are."""
        waited: list[Waited] = []
        try:
            with nullcontext(server) if server else ForkServer() as forks:
                for node, program in which:
                    host = self.host(node)
                    listener = ReadyListener(host.run_dir / f"{program}.notify")
                    process = self._start_daemon(forks, host, program)
                    waited.append(Waited(process, listener, self.log_of(node, program)))
            # Once for all of them: whoever comes after a crash finds the others by their namespaces.
            self.save()
            wait_for_all(waited, START_TIMEOUT_S, told)
        finally:
            for each in waited:
                each.listener.close()

    def _start_daemon(self, server: ForkServer, host: Host, program: str) -> Process:
        """Forked where it runs as our units have it; what is wanted in another way is executed."""
        argv, environment = self.daemon_argv(host.name, program), {"NOTIFY_SOCKET": f"/run/{program}.notify"}
        usual = as_daemon([])
        if argv[: len(usual)] != usual:
            return self.start(host, program, argv, environment)
        pid = server.start(host, argv[len(usual) :], self.log_of(host.name, program), environment)
        return self._note(host, program, pid)

    def start(
        self, host: Host, program: str, argv: Sequence[str], environment: dict[str, str] | None = None
    ) -> Process:
        with self.log_of(host.name, program).open("ab") as log:
            pid = host.start(argv, log, environment)
        process = self._note(host, program, pid)
        self.save()
        return process

    def _note(self, host: Host, program: str, pid: int) -> Process:
        process = identify(host.name, program, pid)
        self._state.processes.append(process)
        return process

    def log_of(self, host: str, program: str) -> Path:
        return self.folder / host / f"{program}.log"

    def process(self, host: str, program: str) -> Process:
        """The newest process of that name on that host."""
        for process in reversed(self._state.processes):
            if (process.host, process.program) == (host, program):
                return process
        raise LabError(f"{program} was never started on {host}")

    def stop(self, host: str, program: str, number: Signals) -> None:
        """Send a signal to a daemon and wait until it is gone."""
        process = self.process(host, program)
        send([process], number)
        wait_for_end(process)
        self._state.processes.remove(process)
        self.save()

    def end(self, host: str, program: str) -> None:
        """End a program if it runs."""
        if self.is_running(host, program):
            end([self.process(host, program)])

    def is_running(self, host: str, program: str) -> bool:
        return any(each.is_alive() for each in self.processes if (each.host, each.program) == (host, program))

    def switch_mode(self, mode: str) -> None:
        """Restart every netproxy in another mode; the rules of the old one stay until the new ones are in."""
        running = [process for process in self.processes if process.program == "netproxy"]
        end(running)
        self.spec = self._state.spec = msgspec.structs.replace(self.spec, mode=mode)
        self._state.processes = [process for process in self.processes if process not in running]
        self.start_daemons([(node.name, "netproxy") for node in self.nodes])

    # -- faults ---------------------------------------------------------------------------------------------------

    @property
    def faults(self) -> Mapping[str, str]:
        """On which host, by the fault's name; the oldest first."""
        return self._state.faults

    def note_fault(self, name: str, host: str) -> None:
        self._state.faults[name] = host
        self.save()

    def forget_fault(self, name: str) -> None:
        del self._state.faults[name]
        self.save()

    # -- state and down -------------------------------------------------------------------------------------------

    def save(self) -> None:
        new = self.folder / "state.json.new"
        new.write_bytes(msgspec.json.encode(self._state))
        new.rename(self.folder / "state.json")

    def down(self) -> None:
        kill(self._state.processes)
        unwire(self.spec.name)
        # The state file goes last: whoever has to finish this after a crash finds the lab by it.
        for host in self.spec.hosts:
            shutil.rmtree(self.folder / host, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            STATE_DIR.rmdir()  # fails as long as there are other labs


def up(
    spec: Spec, progress: Progress = lambda _: None, *, owned: bool = False, kind: type[Cluster] = Cluster
) -> Cluster:
    """Bring a lab up; what a crashed one of the same name left behind goes first.

    An owned lab belongs to the calling process: once that is gone, anyone may clear the lab away. `kind` may differ in
    what it builds.
    """
    if not NAME.fullmatch(spec.name):
        raise LabError(f"{spec.name!r} cannot be a lab's name: want at most 40 of a-z, 0-9 and -, a letter first")
    clear_abandoned(spec.name)
    folder = STATE_DIR / spec.name
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise LabError(f"a lab named {spec.name!r} is up; `netctl lab down --name {spec.name}` ends it") from None
    # Until it is up, every lab is its builder's: a build that was killed half-way is abandoned.
    state = State(spec, identify("", "owner", os.getpid()))
    cluster = kind(folder, state)
    try:
        cluster.save()
        cluster.build(progress)
        if not owned:
            state.owner = None
            cluster.save()
    except BaseException:
        cluster.down()
        raise
    return cluster


def attach(name: str) -> Cluster:
    folder = STATE_DIR / name
    try:
        raw = (folder / "state.json").read_bytes()
    except FileNotFoundError:
        running = ", ".join(names()) or "none"
        raise LabError(f"no lab named {name!r} is up (running: {running}); start one with `netctl lab up`") from None
    return Cluster(folder, msgspec.json.decode(raw, type=State))


def names() -> Iterator[str]:
    return (path.name for path in sorted(STATE_DIR.glob("*")) if (path / "state.json").exists())


def take_down(name: str) -> None:
    """Also what is left of one that was killed while it was built. LabError when there is nothing of that name."""
    folder = STATE_DIR / name
    if (folder / "state.json").exists():
        attach(name).down()
    elif NAME.fullmatch(name) and (folder.exists() or existing_namespaces(name)):
        shutil.rmtree(folder, ignore_errors=True)
        unwire(name)
    else:
        attach(name)  # says what there is


def clear_abandoned(name: str) -> None:
    """Take down the lab of that name if the process it belonged to is gone."""
    if (STATE_DIR / name / "state.json").exists():
        owner = attach(name)._state.owner  # noqa: SLF001 - the same module
        if owner is None or owner.is_alive():
            return
    with suppress(LabError):  # nothing there
        take_down(name)


def sweep() -> None:
    """Take down every lab whose owner is gone."""
    for name in list(names()):
        with suppress(LabError):  # gone since
            clear_abandoned(name)


def missing_programs() -> list[str]:
    wanted = ("ip", "etcd", "etcdctl", "nft", "iptables", "setpriv", "sysctl")
    return [program for program in wanted if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]


def can_run() -> str:
    """Why no lab can run here; empty when it can."""
    if os.geteuid() != 0:
        return "a lab needs root, for network namespaces"
    missing = missing_programs()
    return f"not installed: {', '.join(missing)} (make setup installs them)" if missing else ""
