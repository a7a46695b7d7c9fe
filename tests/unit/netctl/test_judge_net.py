"""What peers and Services answered, as findings."""

from dataclasses import replace

import pytest

from netctl.findings.host_facts import Frontend
from netctl.findings.judge_net import NetFacts, Ping, judge_net
from netctl.findings.net_facts import spread

PEER = {
    "key": "10.244.9.0-24",
    "public_ips": ["10.10.0.2"],
    "programmed": True,
    "skipped": None,
    "lost_since": None,
    "large_lost_since": None,
}
WEB = Frontend("10.96.0.10", "tcp", 80)
HEALTHY = NetFacts(
    [PEER], {"10.10.0.2": Ping(answers=True, full_bytes=1500, full_answers=True)}, {PEER["key"]: True}, {WEB: ""}
)

FAULTS = {
    "NN104": {"peers": [{**PEER, "lost_since": 100.0}]},
    "NN105": {"peers": [{**PEER, "large_lost_since": 100.0}]},
    "NN110": {"peers": [{**PEER, "programmed": False}]},
    "NN113": {"pings": {"10.10.0.2": Ping(answers=True, full_bytes=1500, full_answers=True, share=0.7)}},
    "NN210": {"calls": {WEB: "refused"}},
}


def judged(**changed):
    return list(judge_net(replace(HEALTHY, **changed)))


def test_where_all_answer_nothing_is_found():
    assert judged() == []


@pytest.mark.parametrize("code", FAULTS)
def test_each_fault_is_its_finding_and_no_other(code):
    assert [each.code for each in judged(**FAULTS[code])] == [code]


@pytest.mark.parametrize(
    ("pings", "evidence", "look"),
    [
        (
            {"10.10.0.2": Ping(True, 1500, True)},
            "takes the overlay's UDP away",
            "tcpdump -ni any udp and host 10.10.0.2",
        ),
        ({"10.10.0.2": Ping(False, 1500, False)}, "nor does the node answer", "ping 10.10.0.2"),
        ({}, "the underlay was not asked", "ping 10.10.0.2"),
    ],
)
def test_a_lost_peer_is_told_apart_by_what_its_node_answers(pings, evidence, look):
    [finding] = judged(pings=pings, **FAULTS["NN104"])
    assert evidence in finding.evidence
    assert (finding.next, finding.since) == (look, 100.0)


def test_a_peer_that_never_answered_a_probe_is_lost_when_its_end_answers_no_ping():
    [finding] = judged(overlay={PEER["key"]: False})
    assert (finding.code, finding.since) == ("NN104", None)
    assert finding.evidence.startswith("no ping through the overlay is answered; the node itself answers a ping, ")


def test_a_narrow_underlay_is_found_where_the_overlay_is_silent():
    """As with flanneld on the other side, who answers no probes."""
    [finding] = judged(pings={"10.10.0.2": Ping(answers=True, full_bytes=1500, full_answers=False)})
    assert (finding.code, finding.next) == ("NN105", "ping -M do -s 1472 10.10.0.2")


def test_a_node_that_answers_no_pings_is_no_finding_while_the_overlay_is_fine():
    assert judged(pings={"10.10.0.2": Ping(answers=False, full_bytes=1500, full_answers=False)}) == []


def test_a_skipped_lease_is_not_missed_in_the_kernel():
    assert judged(peers=[{**PEER, "programmed": False, "skipped": "overlaps ours", "public_ips": []}]) == []


def test_services_are_called_from_all_over_the_list():
    many = [Frontend(f"10.96.0.{number}", "tcp", 80) for number in range(200)]
    assert len(spread(many, 64)) <= 64
    assert spread(many, 64)[-1] in many[-4:]
    assert spread(many[:3], 64) == many[:3]


@pytest.mark.parametrize(("share", "codes"), [(1.0, []), (0.95, []), (0.9, ["NN113"]), (0.05, ["NN113"])])
def test_a_way_that_answers_some_pings_and_loses_others_is_found(share, codes):
    found = judged(pings={"10.10.0.2": Ping(answers=True, full_bytes=1500, full_answers=True, share=share)})
    assert [each.code for each in found] == codes
    assert all("%" in each.evidence for each in found)
