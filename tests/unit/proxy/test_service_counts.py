"""Totals by service port, out of what the kernel counts by called place."""

import asyncio
from ipaddress import ip_address

import pytest

from controlloop.family import Family
from controlloop.metrics import exposition
from proxy import service_counts
from proxy.frontends import ANY_NODE_ADDRESS, Balance, Frontend, Protocol, Scope, ServiceName, ServicePortName
from proxy.service_counts import ServiceCounts, count_families

pytestmark = pytest.mark.kube_proxy("gap 5.7-12")

WEB, OTHER = ServiceName("default", "web"), ServiceName("default", "other")
HTTP = ("default", "web", "http")


def frontend(address, port=80, service=WEB, name="http", scope=Scope.CLUSTER_IP):
    port_name = ServicePortName(service, name)
    return Frontend(port_name, ip_address(address), Protocol.TCP, port, Balance.RANDOM, (), scope=scope)


def at(address, port=80):
    return ip_address(address).version, f"{address} . tcp . {port}"


@pytest.fixture
def counts():
    made = ServiceCounts(dict)
    made.follow([(WEB, [frontend("10.96.0.1")])])
    return made


def totals(counts, metric="connections"):
    return {
        (port.name.service.namespace, port.name.service.name, port.name.port): count
        for (which, port), count in counts.totals().items()
        if which == metric
    }


def test_all_places_of_a_port_add_up(counts):
    node_port = frontend(str(ANY_NODE_ADDRESS[Family.V6]), 30080, scope=Scope.NODE_PORT)
    counts.follow([(WEB, [frontend("10.96.0.1"), frontend("192.0.2.1"), frontend("fd00::1"), node_port])])
    places = [at("10.96.0.1"), at("192.0.2.1"), at("fd00::1"), (6, "tcp . 30080")]
    counts.take({("connections", place): 10**n for n, place in enumerate(places)})
    counts.take({("bytes", places[0]): 7})
    assert totals(counts) == {HTTP: 1111}
    assert totals(counts, "bytes") == {HTTP: 7}


def test_a_reading_that_leaves_a_place_out_changes_nothing(counts):
    for reading in {at("10.96.0.1"): 5}, {}, {at("10.96.0.1"): 6}:
        counts.take({("connections", place): count for place, count in reading.items()})
    assert totals(counts) == {HTTP: 6}


def test_a_kernel_that_counts_anew_adds_to_what_was(counts):
    for reading in 5, 2, 3:
        counts.take({("connections", at("10.96.0.1")): reading})
    assert totals(counts) == {HTTP: 8}


def test_a_place_that_goes_takes_nothing_away(counts):
    counts.follow([(WEB, [frontend("10.96.0.1"), frontend("192.0.2.1")])])
    counts.take({("connections", at("10.96.0.1")): 5, ("connections", at("192.0.2.1")): 3})
    counts.follow([(WEB, [frontend("10.96.0.1")])])
    counts.take({("connections", at("10.96.0.1")): 6})
    assert totals(counts) == {HTTP: 9}


def test_a_port_that_goes_is_told_of_no_more(counts):
    counts.take({("connections", at("10.96.0.1")): 5})
    counts.follow([(WEB, [])])
    counts.take({("connections", at("10.96.0.1")): 6})
    assert totals(counts) == {}


@pytest.mark.parametrize("first", [WEB, OTHER])
def test_a_place_that_another_service_takes_over_counts_for_it_from_then_on(counts, first):
    counts.take({("connections", at("10.96.0.1")): 5})
    changes = {WEB: [frontend("10.96.0.2")], OTHER: [frontend("10.96.0.1", service=OTHER)]}
    counts.follow(sorted(changes.items(), key=lambda change: change[0] != first))
    counts.take({("connections", at("10.96.0.1")): 7})
    assert totals(counts) == {HTTP: 5, ("default", "other", "http"): 2}


def test_a_place_that_nobody_has_is_passed_over(counts):
    counts.take({("connections", at("10.96.0.9")): 5})
    assert totals(counts) == {}


def test_as_prometheus_reads_them(counts):
    counts.take({("connections", at("10.96.0.1")): 5, ("bytes", at("10.96.0.1")): 1234})
    lines = exposition(count_families(counts.totals())).decode().splitlines()
    labels = '{namespace="default",service="web",port="http",protocol="tcp"}'
    assert [line for line in lines if not line.startswith("#")] == [
        f"netproxy_service_connections_total{labels} 5",
        f"netproxy_service_bytes_total{labels} 1234",
    ]


@pytest.mark.parametrize(("fresh_s", "readings"), [(60.0, 1), (0.0, 3)])
async def test_those_who_ask_together_share_a_reading(monkeypatch, fresh_s, readings):
    monkeypatch.setattr(service_counts, "FRESH_S", fresh_s)
    read = []
    counts = ServiceCounts(lambda: read.append(1) or {})
    await asyncio.gather(*(counts.refresh() for _ in range(3)))
    assert len(read) == readings


async def test_what_cannot_be_read_stays_as_it_was(monkeypatch, caplog):
    monkeypatch.setattr(service_counts, "FRESH_S", 0.0)
    answers = iter([{("connections", at("10.96.0.1")): 5}])

    def read():
        for answer in answers:
            return answer
        raise OSError("gone")

    counts = ServiceCounts(read)
    counts.follow([(WEB, [frontend("10.96.0.1")])])
    await counts.refresh()
    await counts.refresh()
    assert totals(counts) == {HTTP: 5}
    assert "counts not read" in caplog.text
