"""What systemd hears from us."""

import socket

import pytest
from deadline import PATIENCE_S

from controlloop.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def supervisor(request, tmp_path, monkeypatch):
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.settimeout(PATIENCE_S)
        heard.bind(name if request.param == "path" else f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", name if request.param == "path" else f"@{name}")
        yield heard


@pytest.mark.parametrize(
    ("say", "datagram"),
    [
        (lambda notifier: notifier.ready("3 services"), b"READY=1\nSTATUS=3 services"),
        (lambda notifier: notifier.status("waiting"), b"STATUS=waiting"),
        (lambda notifier: notifier.stopping(), b"STOPPING=1"),
        (lambda notifier: notifier.watchdog(), b"WATCHDOG=1\nEXTEND_TIMEOUT_USEC=30000000"),
    ],
    ids=["ready", "status", "stopping", "watchdog"],
)
def test_each_message_is_one_datagram(supervisor, say, datagram):
    say(Notifier())
    assert supervisor.recv(4096) == datagram


def test_without_a_supervisor_nothing_is_said(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().ready("to nobody")


def test_a_supervisor_that_went_away_does_no_harm(monkeypatch, tmp_path):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    Notifier().ready("to nobody")
