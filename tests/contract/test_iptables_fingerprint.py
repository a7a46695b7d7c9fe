"""Somebody else's change to iptables-legacy shows in what the kernel says of its tables."""

import subprocess

import pytest

from controlloop.family import Family
from controlloop.iptables.fingerprint import Fingerprint

TABLES = ("raw", "nat", "filter")
PROGRAM = {Family.V4: "iptables-legacy", Family.V6: "ip6tables-legacy"}
CHANGES = {
    "a chain is made": "-t nat -N LATER",
    "a rule is added": "-A OURS -j ACCEPT",
    "a rule is deleted": "-D OURS -j RETURN",
    "a jump is deleted": "-t nat -D OUTPUT -j OURS",
    "a jump moves to another chain": "-t nat -A PREROUTING -j OURS",
    "a table is flushed": "-t nat -F",
    "a chain is deleted": "-t nat -X EMPTY",
    "another table is changed": "-t raw -A PREROUTING -j ACCEPT",
}


@pytest.fixture(params=list(Family), ids=lambda family: family.nft)
def family(request):
    return request.param


@pytest.fixture
def iptables(netns, family):
    def change(line):
        subprocess.run([PROGRAM[family], "-w", *line.split()], check=True)

    for line in ("-t nat -N OURS", "-t nat -N EMPTY", "-t nat -A OUTPUT -j OURS", "-N OURS", "-A OURS -j RETURN"):
        change(line)
    return change


@pytest.fixture
def fingerprint(iptables, family):
    made = Fingerprint(family, TABLES)
    yield made
    made.close()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_comes_or_goes_shows(iptables, fingerprint, change):
    before = fingerprint.read()
    iptables(change)
    assert fingerprint.read() != before


def test_traffic_and_reading_do_not_show(iptables, fingerprint, family):
    before = fingerprint.read()
    subprocess.run(["ping", "-c1", "127.0.0.1" if family is Family.V4 else "::1"], check=True, capture_output=True)
    subprocess.run([f"{PROGRAM[family]}-save"], check=True, capture_output=True)
    assert fingerprint.read() == before


def test_a_table_that_this_kernel_does_not_have_is_empty(netns, family):
    fingerprint = Fingerprint(family, ("no-such-table",))
    assert fingerprint.read() == (b"",)
    fingerprint.close()
