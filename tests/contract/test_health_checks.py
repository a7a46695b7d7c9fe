"""Load balancers ask a node for its endpoints, over TCP, in a network namespace of the test's own."""

import asyncio
import json
import socket

import pytest
from deadline import PATIENCE_S

from proxy.frontends import ServiceName
from proxy.health_checks import HealthChecks
from proxy.local_endpoints import HealthCheck

pytestmark = [pytest.mark.usefixtures("netns"), pytest.mark.kube_proxy("6.1-42")]

WEB, API = ServiceName("default", "web"), ServiceName("default", "api")
EVERYWHERE = ("0.0.0.0", "::")


class Proxy:
    healthy = True


@pytest.fixture
def proxy():
    return Proxy()


@pytest.fixture
async def checks(proxy):
    made = HealthChecks(lambda: proxy.healthy)
    yield made
    made.close()


async def ask(port, address="127.0.0.1", page="/anything"):
    """Status, headers and document; None: nobody listens."""
    try:
        reader, writer = await asyncio.open_connection(address, port)
    except ConnectionRefusedError:
        return None
    writer.write(f"GET {page} HTTP/1.1\r\nHost: node\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE_S):
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    status, *headers = head.split("\r\n")
    return int(status.split()[1]), dict(line.split(": ") for line in headers), json.loads(body)


async def test_a_node_with_endpoints_says_how_many(checks):
    await checks.settle({WEB: HealthCheck(32000, 2)}, EVERYWHERE)
    for address in ("127.0.0.1", "::1"):
        status, headers, document = await ask(32000, address)
        assert status == 200
        assert headers["X-Load-Balancing-Endpoint-Weight"] == "2"
        assert document == {
            "service": {"namespace": "default", "name": "web"},
            "localEndpoints": 2,
            "serviceProxyHealthy": True,
        }


async def test_a_node_without_endpoints_or_with_an_ill_proxy_wants_no_traffic(checks, proxy):
    await checks.settle({WEB: HealthCheck(32000, 0)}, EVERYWHERE)
    assert (await ask(32000))[0] == 503
    await checks.settle({WEB: HealthCheck(32000, 1)}, EVERYWHERE)
    assert (await ask(32000))[0] == 200
    proxy.healthy = False
    assert (await ask(32000))[0] == 503


async def test_one_removed_one_kept_one_with_another_port_one_added(checks):
    other = ServiceName("default", "other")
    await checks.settle(
        {WEB: HealthCheck(32000, 1), API: HealthCheck(32001, 1), other: HealthCheck(32002, 1)}, EVERYWHERE
    )
    new = ServiceName("default", "new")
    await checks.settle(
        {API: HealthCheck(32001, 3), other: HealthCheck(32003, 1), new: HealthCheck(32004, 1)}, EVERYWHERE
    )
    assert await ask(32000) is None
    assert (await ask(32001))[2]["localEndpoints"] == 3
    assert await ask(32002) is None
    assert (await ask(32003))[2]["service"]["name"] == "other"
    assert (await ask(32004))[2]["service"]["name"] == "new"


@pytest.mark.kube_proxy("gap 3.9-5")
async def test_addresses_that_change_are_followed(checks):
    await checks.settle({WEB: HealthCheck(32000, 1)}, ("127.0.0.1",))
    assert await ask(32000, "127.0.0.2") is None
    await checks.settle({WEB: HealthCheck(32000, 1)}, ("127.0.0.2",))
    assert await ask(32000, "127.0.0.1") is None
    assert (await ask(32000, "127.0.0.2"))[0] == 200


async def test_a_port_in_use_is_named_and_tried_again(checks):
    with socket.create_server(("127.0.0.1", 32000)):
        await checks.settle({WEB: HealthCheck(32000, 1), API: HealthCheck(32001, 1)}, ("127.0.0.1",))
        assert "default/web" in checks.failures[WEB]
        assert "32000" in checks.failures[WEB]
        assert (await ask(32001))[0] == 200
    await checks.settle({WEB: HealthCheck(32000, 1)}, ("127.0.0.1",))
    assert not checks.failures
    assert (await ask(32000))[0] == 200


async def test_services_may_come_and_go_while_a_port_is_opened(checks):
    wanted = {WEB: HealthCheck(32000, 1), API: HealthCheck(32001, 1)}
    settling = asyncio.create_task(checks.settle(wanted, EVERYWHERE))
    await asyncio.sleep(0)
    wanted[ServiceName("default", "new")] = HealthCheck(32002, 1)
    await settling
    assert (await ask(32000))[0] == (await ask(32001))[0] == 200
