"""What `netctl top` takes of a processor while it watches many Services, beside a Python that only waits as often.

    python -m bench.top [--services 10000] [--write]

netproxy of this tree, in nftables mode, in network namespaces made for it; `top` has a screen of its own. Needs root.
"""

import argparse
import asyncio
import fcntl
import os
import pty
import struct
import sys
import tempfile
import termios
import threading
import time
from contextlib import contextmanager
from pathlib import Path

# gRPC would stop its threads at every fork; what is forked here only enters a namespace and becomes another program.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

from bench.report import table, write
from bench.service.daemon import NFTABLES, ROOT, TICKS, Netproxy
from bench.service.measure import wait_ready
from bench.service.network import HOME_ADDRESS, leave_machine, network
from bench.service.workload import Workload, put_all
from controlloop.etcd import Etcd
from lab.etcd import EtcdServer

MEMORY = "/dev/shm"  # noqa: S108 - a folder of our own in it
PERIOD_S, WATCH_S = 1.0, 20.0
SETTLE_S, PATIENCE_S = 5.0, 60.0
TARGET = 5.0
HEAD = "| | of a core | target | floor: Python that wakes as often | netproxy meanwhile |"
WAITS = f"import time\nwhile True: time.sleep({PERIOD_S})"
NETCTL = str(Path(sys.executable).with_name("netctl"))


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def percents(pids):
    before = [cpu_s(pid) for pid in pids]
    time.sleep(WATCH_S)
    return [(cpu_s(pid) - was) / WATCH_S * 100 for pid, was in zip(pids, before, strict=True)]


@contextmanager
def screen(net, folder):
    """`top` on a terminal that is read."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**os.environ, "RUNTIME_DIRECTORY": str(folder / "nodenet"), "TERM": "xterm", "PYTHONUTF8": "1"}
    argv = [NETCTL, "top", "--interval", str(PERIOD_S)]
    process = net.popen("node", argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=ROOT)
    os.close(theirs)
    reader = threading.Thread(target=read_away, args=(ours,), daemon=True)
    reader.start()
    try:
        yield process.pid
        if process.poll() is not None:
            raise SystemExit("bench: netctl top has ended")
    finally:
        process.kill()
        process.wait()


def read_away(terminal):
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        pass


def calls(net, workload, seconds):
    """Connections in each second, to many Services in turns."""
    step = max(1, workload.services // 500)
    targets = [workload.target(number) for number in range(0, workload.services, step)]
    found = []
    thread = threading.Thread(target=lambda: found.append(net.ask("rate", targets, seconds)))
    thread.start()
    return thread, found


def rows(net, proxy, folder, workload):
    what = f"{workload.services} x {workload.endpoints}"
    waiting = net.popen("node", [sys.executable, "-c", WAITS])
    try:
        with screen(net, folder) as top:
            time.sleep(SETTLE_S)
            idle = percents([top, waiting.pid, proxy.pid])
            yield row(f"{what}, nobody calls", idle)
            thread, found = calls(net, workload, SETTLE_S + WATCH_S + 1)
            time.sleep(SETTLE_S)
            busy = percents([top, waiting.pid, proxy.pid])
            thread.join()
            yield row(f"{what}, {found[0]:.0f} connections/s to 500 Services", busy, target=None)
    finally:
        waiting.kill()
        waiting.wait()


def row(what, figures, target=TARGET):
    top, floor, proxy = figures
    goal = "" if target is None else f"{target:g} %" + ("" if top <= target else " (missed)")
    return f"| {what} | {top:.1f} % | {goal} | {floor:.2f} % | {proxy:.2f} % |"


async def run(services, folder):
    leave_machine()
    urls = (f"http://{HOME_ADDRESS}:{port}" for port in (2379, 2380))
    server = EtcdServer(folder / "etcd", client_url=next(urls), peer_url=next(urls))
    server.start()
    etcd = Etcd([server.client_url])
    workload = Workload(f"/bench/{services}", services, 5)
    try:
        await put_all(etcd, list(workload.objects(range(services))))
        with network(folder) as net:
            proxy = Netproxy(net, NFTABLES, server.client_url, workload.prefix, folder)
            started = proxy.start()
            try:
                net.ask("until", [workload.target(services - 1)], "any", started, PATIENCE_S)
                await wait_ready(folder)
                return list(rows(net, proxy, folder, workload))
            finally:
                proxy.stop()
    finally:
        await etcd.close()
        server.stop()


def main():
    parser = argparse.ArgumentParser(prog="bench.top")
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        text = table(HEAD, asyncio.run(run(options.services, Path(folder))))
    print(text)
    if options.write:
        write("top", text)


if __name__ == "__main__":
    main()
