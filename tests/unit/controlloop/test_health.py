"""The status socket with well-behaved, rude and slow clients."""

import asyncio
import socket
import stat
from contextlib import asynccontextmanager

import pytest
from deadline import PATIENCE_S

from controlloop import http_server
from controlloop.client import UnreachableError, get_json
from controlloop.health import HealthServer
from controlloop.http_server import Answer, json_answer, yes_or_no

LARGE = 16 * 1024 * 1024
ROUTES = {
    "/status": lambda: json_answer({"ready": True}),
    "/healthz": lambda: yes_or_no(good=True, text="ok"),
    "/readyz": lambda: yes_or_no(good=False, text="waits for a lease"),
    "/large": lambda: Answer(200, b" " * LARGE),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "daemon.sock"


@asynccontextmanager
async def serving(path):
    task = asyncio.create_task(HealthServer(path, ROUTES).run())
    async with asyncio.timeout(PATIENCE_S):
        while not path.is_socket() or path.stat().st_mode & 0o777 != 0o660:  # noqa: ASYNC110 - a file says so
            await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def server(path):
    async with serving(path):
        yield


async def ask(path, request):
    """Everything the server says until it closes."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request)
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def get(page, method="GET"):
    return f"{method} {page} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def status_and_body(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("/healthz", (200, b"ok\n")),
        ("/readyz", (503, b"waits for a lease\n")),
        ("/status", (200, b'{"ready":true}\n')),
        ("/status?verbose=1", (200, b'{"ready":true}\n')),
        ("/", (404, b"no such page; there are /status /healthz /readyz /large\n")),
    ],
)
async def test_pages_answer_by_name(server, path, page, expected):
    assert status_and_body(await ask(path, get(page))) == expected


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
async def test_nothing_can_be_changed_from_outside(server, path, method):
    assert status_and_body(await ask(path, get("/status", method)))[0] == 405


@pytest.mark.parametrize("rude", [b"\x16\x03\x01 not http\r\n\r\n", get("/" + "x" * 4 * http_server.MAX_REQUEST_BYTES)])
async def test_who_does_not_speak_http_gets_no_answer_and_breaks_nothing(server, path, rude):
    assert await ask(path, rude) == b""
    assert status_and_body(await ask(path, get("/healthz")))[0] == 200


async def test_who_says_nothing_is_sent_away_and_delays_nobody(server, path, monkeypatch):
    monkeypatch.setattr(http_server, "REQUEST_TIMEOUT_S", 1.0)
    slow = [asyncio.create_task(ask(path, b"GET /sta")) for _ in range(50)]
    assert status_and_body(await ask(path, get("/healthz")))[0] == 200
    assert await asyncio.gather(*slow) == [b""] * 50


async def test_who_asks_and_does_not_read_is_cut_off(server, path, monkeypatch):
    """What it would not take may be megabytes, and must not stay in memory as long as it likes."""
    monkeypatch.setattr(http_server, "REQUEST_TIMEOUT_S", 1.0)
    with socket.socket(socket.AF_UNIX) as slow:
        slow.settimeout(PATIENCE_S)
        slow.connect(str(path))
        slow.sendall(get("/large"))
        assert await ask(path, b"GET /sta") == b"", "who came later has been sent away"
        taken = 0
        while part := slow.recv(65536):
            taken += len(part)
    assert 0 < taken < LARGE


async def test_a_client_that_leaves_at_once_breaks_nothing(server, path):
    for _ in range(20):
        _, writer = await asyncio.open_unix_connection(path)
        writer.close()
    assert status_and_body(await ask(path, get("/healthz")))[0] == 200


async def test_a_socket_left_by_a_killed_daemon_is_replaced(path):
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with serving(path):
        assert status_and_body(await ask(path, get("/healthz")))[0] == 200
    assert not path.exists()


async def test_only_user_and_group_may_ask(server, path):
    assert stat.filemode(path.stat().st_mode) == "srw-rw----"


async def test_our_client_reads_json_and_names_what_it_could_not_get(server, path):
    assert await asyncio.to_thread(get_json, path, "/status") == {"ready": True}
    with pytest.raises(UnreachableError, match=r"daemon\.sock: HTTP/1\.1 503"):
        await asyncio.to_thread(get_json, path, "/readyz")
    with pytest.raises(UnreachableError, match=r"daemon\.sock: not JSON"):
        await asyncio.to_thread(get_json, path, "/healthz")


def test_our_client_names_a_daemon_that_is_not_there(path):
    with pytest.raises(UnreachableError, match=r"daemon\.sock: No such file or directory"):
        get_json(path, "/status")
