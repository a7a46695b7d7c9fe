"""The daemons of a lab are what a node runs: the installed programs, as a user with one capability."""

import os
import sys
from pathlib import Path

import pytest

from lab.cluster import up
from lab.topology import Spec

CAP_NET_ADMIN = 1 << 12
DAEMONS = ["netagent", "netproxy"]


@pytest.fixture(scope="module", params=["nftables", "iptables"])
def lab(request):
    cluster = up(Spec(f"user-{os.getpid()}-{request.param}", nodes=1, pods_per_node=0, mode=request.param), owned=True)
    yield cluster
    cluster.down()


@pytest.fixture(params=DAEMONS)
def proc(lab, request):
    return Path(f"/proc/{lab.process('node-1', request.param).pid}"), request.param


def fields(proc):
    return dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines())


def test_a_daemon_runs_as_a_user_of_its_own(proc):
    process, _ = proc
    assert "0" not in fields(process)["Uid"].split() + fields(process)["Gid"].split()
    assert fields(process)["Groups"].split() == []


@pytest.mark.parametrize("which", ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"])
def test_a_daemon_has_net_admin_and_nothing_else(proc, which):
    assert int(fields(proc[0])[which], 16) == CAP_NET_ADMIN


def test_a_daemon_can_gain_nothing(proc):
    assert fields(proc[0])["NoNewPrivs"] == "1"


def test_a_daemon_is_the_installed_program(proc):
    process, program = proc
    argv = (process / "cmdline").read_bytes().split(b"\0")
    assert os.fsdecode(argv[1]) == str(Path(sys.executable).with_name(program))
