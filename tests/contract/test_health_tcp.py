"""The health pages over TCP, in a network namespace of the test's own."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
from deadline import PATIENCE_S
from namespace import fresh_namespace

from controlloop.errors import OperatorError
from controlloop.health import HealthServer, metrics_answer
from controlloop.http_server import MAX_CONNECTIONS, TcpAddress, json_answer, yes_or_no
from controlloop.metrics import gauge

ROUTES = {
    "/status": lambda: json_answer({"secret": True}),
    "/healthz": lambda: yes_or_no(good=True, text="ok"),
    "/readyz": lambda: yes_or_no(good=False, text="waits for a lease"),
    "/metrics": lambda: metrics_answer([gauge("up", "Up.", 1)]),
}


@pytest.fixture(autouse=True)
def _namespace():
    with fresh_namespace():
        yield


@asynccontextmanager
async def serving(path, address="127.0.0.1", port=10254):
    server = HealthServer(path, ROUTES, TcpAddress(address, port, "--healthz-ip"))
    task = asyncio.create_task(server.run())
    async with asyncio.timeout(PATIENCE_S):
        while not path.is_socket() and not task.done():  # noqa: ASYNC110 - a file says so
            await asyncio.sleep(0)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def get(page, address="127.0.0.1", port=10254):
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(f"GET {page} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    try:
        async with asyncio.timeout(PATIENCE_S):
            return (await reader.read()).decode()
    except ConnectionResetError:
        return ""
    finally:
        writer.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_tcp_shows_health_and_metrics_and_nothing_of_the_node(tmp_path, address):
    async with serving(tmp_path / "a.sock", address):
        assert (await get("/healthz", address)).startswith("HTTP/1.1 200")
        assert (await get("/readyz", address)).startswith("HTTP/1.1 503")
        metrics = await get("/metrics", address)
        assert "version=0.0.4" in metrics
        assert metrics.endswith("\nup 1\n")
        refused = await get("/status", address)
        assert refused.startswith("HTTP/1.1 404")
        assert "/status" not in refused


async def test_a_port_that_is_taken_is_the_operators_move(tmp_path):
    with socket.create_server(("127.0.0.1", 10254)):
        async with serving(tmp_path / "a.sock") as task:
            with pytest.raises(OperatorError, match=r"^--healthz-ip 127.0.0.1 port 10254: Address already in use$"):
                await task


async def test_an_address_of_another_node_is_the_operators_move(tmp_path):
    async with serving(tmp_path / "a.sock", "192.0.2.1") as task:
        with pytest.raises(OperatorError, match=r"192\.0\.2\.1 port 10254: Cannot assign requested address"):
            await task


async def test_idle_connections_leave_room_for_others_in_the_end(tmp_path):
    async with serving(tmp_path / "a.sock"):
        idle = [await asyncio.open_connection("127.0.0.1", 10254) for _ in range(MAX_CONNECTIONS)]
        assert await get("/healthz") == ""
        for _, writer in idle:
            writer.close()
        async with asyncio.timeout(PATIENCE_S):
            while not await get("/healthz"):
                pass
