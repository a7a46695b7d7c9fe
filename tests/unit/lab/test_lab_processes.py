"""Processes that are found again by id and start time, and ended."""

import os
import signal
import subprocess
import sys

import pytest

from lab.processes import Process, end, identify, send, start_time, wait_for_end

READY_THEN_WAIT = "import time; print('ready', flush=True); time.sleep(60)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY_THEN_WAIT}"


@pytest.fixture
def start():
    started = []

    def begin(script):
        popen = subprocess.Popen([sys.executable, "-ISc", script], stdout=subprocess.PIPE)
        started.append(popen)
        assert popen.stdout.readline() == b"ready\n"
        return identify("node-1", "test", popen.pid)

    yield begin
    for popen in started:
        popen.kill()
        popen.communicate()


def test_a_running_process_is_alive_and_an_ended_one_is_not(start):
    process = start(READY_THEN_WAIT)
    assert process.is_alive()
    end([process])
    assert not process.is_alive()
    assert start_time(process.pid) is None


def test_a_process_that_waits_to_be_reaped_is_not_alive(start):
    process = start(READY_THEN_WAIT)
    send([process], signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not process.is_alive()


def test_another_process_with_the_same_id_is_not_ours():
    ours = identify("", "", os.getpid())
    assert ours.is_alive()
    assert not Process("", "", ours.pid, ours.started - 1).is_alive()


def test_who_does_not_listen_is_killed(start):
    deaf, polite = start(DEAF), start(READY_THEN_WAIT)
    end([deaf, polite], grace_s=0.1)
    assert not deaf.is_alive()
    assert not polite.is_alive()


def test_ending_what_is_gone_is_no_failure(start):
    process = start(READY_THEN_WAIT)
    for _ in range(2):
        end([process])
    send([process], signal.SIGTERM)
    wait_for_end(process)
