"""Runs `netctl trace` on node-1 of the rig's network, as a user does, and reads what it says."""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

from namespace import inside
from schemas import validated

from netctl.trace.drop_reasons import find_tracefs

NETCTL = str(Path(sys.executable).parent / "netctl")
NETLINK_NETFILTER = "12"
STARTS_WITHIN_S = 60
ENDS_WITHIN_S = 90


class Tracing:
    """One run, that has begun to listen."""

    def __init__(self, namespace, *arguments, form="json", count=1, timeout="60s"):
        # No daemon answers here: all that is told, the kernel's rules tell.
        argv = [NETCTL, "trace", "--without-daemons", *arguments]
        argv += ["-o", form, "--count", str(count), "--timeout", timeout]
        environment = {**os.environ, "RUNTIME_DIRECTORY": "/nonexistent/nodenet"}
        with inside(namespace):
            self.process = subprocess.Popen(
                argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
            )
        self.errors = self._wait_until_it_listens()

    def _wait_until_it_listens(self):
        said = []
        deadline = time.monotonic() + STARTS_WITHIN_S
        while time.monotonic() < deadline and select.select([self.process.stderr], [], [], STARTS_WITHIN_S)[0]:
            line = self.process.stderr.readline()
            said.append(line)
            if "waiting for" in line or not line:
                break
        return "".join(said)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def end(self, number=None):
        """Exit code and output."""
        if number is not None:
            self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=ENDS_WITHIN_S)
        self.errors += errors
        return self.process.returncode, output

    def has_read_all(self):
        """Whether it has taken all that the kernel has told so far: nothing waits at a socket."""
        lines = Path(f"/proc/{self.process.pid}/net/netlink").read_text().splitlines()[1:]
        waiting = (int(fields[4]) for fields in map(str.split, lines) if fields[1] == NETLINK_NETFILTER)
        return not any(waiting)

    def packets(self):
        """Exit code, and the items of the document."""
        code, output = self.end()
        assert output, self.errors
        document = validated(json.loads(output))
        assert document["summary"]["messages_lost"] == 0
        return code, document["items"]


def tables_in(namespace):
    with inside(namespace):
        listing = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
    return [line for line in listing.splitlines() if "netctl-trace" in line]


def log_settings(namespace):
    """Who hears what is traced, by family: the first word of each line is what can be set."""
    with inside(namespace):
        return Path("/proc/thread-self/net/netfilter/nf_log").read_text()


def tracing_instances():
    """Of the kernel's event tracing, those of netctl."""
    found = find_tracefs()
    return [path.name for path in Path(found, "instances").glob("netctl-trace-*")] if found else []
