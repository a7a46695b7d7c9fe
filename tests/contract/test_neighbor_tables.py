"""The real tables of neighbors, read in a network namespace: they are those of the whole host."""

import subprocess

import pytest

from controlloop.family import Family
from netctl.findings.facts import Reader, read_neighbors
from netctl.findings.host_facts import HostFacts
from netctl.findings.judge_host import neighbors
from netctl.node import LiveNode

NETWORKS = {Family.V4: "10.9.{}.{}", Family.V6: "fd09::{:x}:{:x}"}
PERMANENT, LEARNED = 1500, 3
"""Of each family; more than there is room for by default, which is 1024, and as good as none."""


@pytest.fixture
def device(netns):
    ip("link add near type veth peer name far", "link set near up", "link set far up")
    return "near"


def ip(*lines):
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


def add(device, family, count, state, start=0):
    addresses = (NETWORKS[family].format(*divmod(number, 250)) for number in range(start, start + count))
    ip(*(f"neigh add {each} lladdr 02:00:00:00:00:01 dev {device} nud {state}" for each in addresses))


def found(tables):
    return [(each.code, each.object) for each in neighbors(HostFacts(neighbor_tables=tables))]


def test_a_table_is_full_of_what_needs_room_and_not_of_permanent_entries(device):
    for family in Family:
        add(device, family, PERMANENT, "permanent")
        add(device, family, LEARNED, "reachable", start=PERMANENT)
    reader = Reader(LiveNode())
    tables = {each.family: each for each in read_neighbors(reader)}
    assert reader.unread == []
    assert {family: table.unlimited for family, table in tables.items()} == dict.fromkeys(Family, PERMANENT)
    assert all(table.limited >= LEARNED and table.limit > 0 and table.cleared_s >= 0 for table in tables.values())
    assert found(tables.values()) == []
    # A smaller limit would be one of all network namespaces.
    full = [table._replace(limit=table.limited, cleared_s=1.0) for table in tables.values()]
    assert found(full) == [("NN322", "IPv4"), ("NN322", "IPv6")]
