"""What an etcd says of itself and holds, as findings."""

import json
from dataclasses import replace

import pytest

from netctl.findings.judge_etcd import EtcdFacts, Member, is_old, judge_etcd

URL = "https://192.0.2.1:2379"


def lease(address):
    return json.dumps({"PublicIP": address, "BackendType": "vxlan", "BackendData": {"VNI": 1}}).encode()


RECORDS = {"10.244.1.0-24": lease("10.10.0.1"), "10.244.2.0-24": lease("10.10.0.2")}
HEALTHY = EtcdFacts(
    prefix="/coreos.com/network",
    members={URL: Member("3.6.14")},
    config=b'{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}',
    records=RECORDS,
    key_file="/etc/nodenet/etcd.key",
    key_mode=0o600,
)

FAULTS = {
    "NN401": {"members": {URL: Member(error="failed to connect (UNAVAILABLE)"), "https://b": Member("3.6.14")}},
    "NN402": {"members": {URL: Member("3.4.45")}},
    "NN403": {"members": {"http://192.0.2.1:2379": Member("3.6.14")}},
    "NN404": {"stranger_reads": True, "reads_everything": True},
    "NN405": {"reads_everything": True},
    "NN406": {"records": {**RECORDS, "10.244.3.0-24": lease("10.10.0.2")}},
    "NN407": {"records": {**RECORDS, "garbage": b"{"}},
    "NN408": {"config": None},
    "NN409": {"refusal": "--etcd-username x: permission denied", "config": None, "records": {}},
    "NN410": {"members": {URL: Member("3.6.14", ("NOSPACE",))}},
    "NN411": {"key_mode": 0o644},
}


def judged(**changed):
    return list(judge_etcd(replace(HEALTHY, **changed)))


def test_a_safe_store_with_sound_leases_has_no_findings():
    assert judged() == []


@pytest.mark.parametrize("code", FAULTS)
def test_each_fault_is_its_finding_and_no_other(code):
    assert [each.code for each in judged(**FAULTS[code])] == [code]


def test_a_store_that_is_away_is_not_judged_by_what_it_did_not_say():
    assert [each.code for each in judged(members={URL: Member(error="away")}, config=None)] == ["NN401"]


def test_a_configuration_that_nobody_understands_is_told_with_its_fault():
    [finding] = judged(config=b'{"Network": "10.244.0.0/99"}')
    assert (finding.code, finding.object) == ("NN408", "/coreos.com/network/config")
    assert "10.244.0.0/99" in finding.evidence


def test_subnets_that_overlap_are_found_whatever_lies_between():
    records = {f"10.244.{number}.0-24": lease(f"10.10.1.{number}") for number in range(4, 8)}
    records["10.244.4.0-22"] = lease("10.10.0.9")
    found = {each.object for each in judged(records=records)}
    assert {"10.244.4.0-22 and 10.244.7.0-24", "10.244.4.0-22 and 10.244.5.0-24"} <= found
    assert len(found) == 4


@pytest.mark.parametrize(
    ("version", "old"),
    [
        ("3.4.23", True),
        ("3.4.45", True),
        ("3.5.32", True),
        ("3.5.33", False),
        ("3.6.13", True),
        ("3.6.14", False),
        ("3.7.0", False),
        ("4.0.0", False),
        ("3.7.0-rc.1", False),
        ("main", False),
        ("", False),
    ],
)
def test_versions_before_the_fixes_are_old(version, old):
    assert is_old(version) is old
