"""The lab waits for READY=1 as systemd does, and tells why it did not come."""

import os
import socket
import subprocess
import tempfile

import pytest

from lab.processes import Process, identify
from lab.ready import NotStartedError, ReadyListener, Waited, wait_for_all


@pytest.fixture
def listener(tmp_path):
    made = ReadyListener(tmp_path / "notify")
    yield made
    made.close()
    assert not made.path.exists()


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n" for number in range(20)))
    return path


def say(listener, *messages):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        for message in messages:
            daemon.sendto(message, str(listener.path))


def test_ready_ends_the_wait_whatever_was_said_before(listener, log):
    say(listener, b"STATUS=not READY=1 yet", b"WATCHDOG=1", b"READY=1\nSTATUS=3 services")
    wait_for_all([Waited(identify("node-1", "netproxy", os.getpid()), listener, log)], 5)


def test_of_several_that_become_ready_each_one_is_told(tmp_path, log):
    own, heard = identify("node-1", "netproxy", os.getpid()), []
    waited = [Waited(own, ReadyListener(tmp_path / name), log) for name in ("a", "b", "c")]
    for each in reversed(waited):
        say(each.listener, b"READY=1")
    wait_for_all(waited, 5, heard.append)
    assert heard == [1, 2, 3]
    assert [path for path in tmp_path.iterdir() if path.is_socket()] == []


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """Where logs are kept."""
    folder = tmp_path / "kept"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize(("end", "words"), [("exit 3", "with status 3"), ("kill -9 $$", "by SIGKILL")])
def test_a_daemon_that_ended_is_told_in_a_line(listener, log, kept, end, words):
    log.write_text("Traceback (most recent call last):\n  File x, line 1\nKeyError: 'x'\n\n")
    with subprocess.Popen(["sh", "-c", f"read x; {end}"], stdin=subprocess.PIPE) as daemon:
        process = identify("node-1", "netproxy", daemon.pid)
        daemon.stdin.close()
        with pytest.raises(NotStartedError) as raised:
            wait_for_all([Waited(process, listener, log)], 5)
    (file,) = kept.iterdir()
    assert str(raised.value) == f"netproxy on node-1 ended {words}: KeyError: 'x' (its log: {file})"
    assert file.read_text() == log.read_text()


def test_a_daemon_of_which_nothing_is_left(listener, log):
    with pytest.raises(NotStartedError, match=r"^netproxy on node-1 ended: line 19 \(its log: "):
        wait_for_all([Waited(Process("node-1", "netproxy", os.getpid(), 0), listener, log)], 5)


def test_a_daemon_that_stays_silent_is_told_with_the_time_it_had(listener, log):
    with pytest.raises(NotStartedError, match=r"^netproxy on node-1 not ready after 0\.1 s: line 19 "):
        wait_for_all([Waited(identify("node-1", "netproxy", os.getpid()), listener, log)], 0.1)
