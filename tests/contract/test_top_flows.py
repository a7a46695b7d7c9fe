"""What `netctl top` hears of flows and their bytes in a real kernel, in both families."""

import socket
import subprocess
from pathlib import Path

import pytest
from deadline import eventually

from netctl.top.flows import Flows
from netctl.top.services import endpoint_of

pytestmark = pytest.mark.usefixtures("netns")

AF = {4: socket.AF_INET, 6: socket.AF_INET6}
SERVICE = {4: "10.96.0.1", 6: "fd00:96::1"}
DIRECT = {4: "10.244.1.5", 6: "fd00:244::5"}
ENDPOINT = {4: "10.244.1.5:8080", 6: "[fd00:244::5]:8080"}
HEADERS = {4: 20 + 8, 6: 40 + 8}
RULES = """table {table} t {{
  chain o {{ type nat hook output priority -100; {table} daddr {service} udp dport 80 dnat to {endpoint}; }}
}}"""
ACCOUNTING = Path("/proc/sys/net/netfilter/nf_conntrack_acct")


@pytest.fixture(params=[4, 6])
def send(request):
    """Sends so many bytes from a new port, to the Service or elsewhere; every address is the host's own."""
    family = request.param
    names = {"table": "ip" if family == 4 else "ip6", "service": SERVICE[family], "endpoint": ENDPOINT[family]}
    subprocess.run(["nft", "-f", "-"], input=RULES.format(**names), text=True, check=True)
    for address in SERVICE[family], DIRECT[family]:
        subprocess.run(["ip", f"-{family}", "route", "add", "local", address, "dev", "lo"], check=True)
    with socket.socket(AF[family], socket.SOCK_DGRAM) as answering:
        answering.bind(("", 8080))

        def send(size=1, to=None):
            with socket.socket(AF[family], socket.SOCK_DGRAM) as made:
                made.sendto(b"x" * size, to or (SERVICE[family], 80))

        send.family = family
        yield send


@pytest.fixture
def hearing():
    made = []

    def hear(**options):
        made.append(Flows(**options))
        return made[-1]

    yield hear
    for flows in made:
        flows.close()


def test_a_translated_flow_is_heard_with_its_endpoint(hearing, send):
    flows = hearing()
    send()
    send()
    send(to=(DIRECT[send.family], 8080))
    ((way, count),) = flows.take_connections().items()
    assert (endpoint_of(way), count) == (ENDPOINT[send.family], 2)
    assert (socket.inet_ntop(AF[send.family], way.destination), way.port) == (SERVICE[send.family], b"\0\x50")
    assert flows.take_connections() == {}
    assert flows.take_bytes(now=True) is None, "nobody counts them"


def test_bytes_are_exact_and_none_is_counted_twice(hearing, send):
    ACCOUNTING.write_text("1\n")
    send(500)
    flows = hearing()
    send(100)
    send(200)
    size, _ = flows.take_bytes(now=True)
    assert size.total() == 300 + 2 * HEADERS[send.family], "and not what was before"
    send(50)
    subprocess.run(["conntrack", "-F"], check=True, capture_output=True)
    flows.take_connections()
    size, seconds = flows.take_bytes(now=True)
    assert (size.total(), seconds > 0) == (50 + HEADERS[send.family], True)
    assert flows.take_bytes(now=True)[0] == {}


def test_more_than_the_socket_holds_is_told_as_lost(hearing, send):
    flows = hearing(receive_buffer=1)
    for _ in range(40):
        send()
    heard = flows.take_connections().total()
    assert flows.overflows >= 1
    assert 0 < heard < 40
    send()
    eventually(lambda: flows.take_connections().total() == 1)
