"""What the daemons say of themselves, under its code."""

import re
from pathlib import Path

import pytest
from test_netctl_status import NETAGENT, NETPROXY

from netctl.findings.judge_daemons import judge_agent, judge_proxy, silent
from proxy.iptables.kernel import LIMITED

ROOT = Path(__file__).parents[3]
UNREADY = {**NETAGENT, "ready": False}
UNSYNCED = {**NETPROXY, "ready": False}


def agent(**changed):
    return judge_agent("netagent", {**NETAGENT, **changed})


def proxy(**changed):
    return judge_proxy("netproxy", {**NETPROXY, **changed})


def told(code, **more):
    return {"findings": [{"name": "x", "reason": "y", "code": code, **more}]}


FAULTS = {
    "NN100": lambda: agent(findings=[{"name": "x", "reason": "y"}]),
    "NN200": lambda: proxy(**told("NN299")),
    "NN101": lambda: [silent("netagent", "refused")],
    "NN102": lambda: agent(ready=False, waiting_for="network configuration"),
    "NN103": lambda: agent(ready=False, waiting_for="a lease: another node has it"),
    "NN104": lambda: agent(**told("NN104", since=1.0, remedy="look there")),
    "NN105": lambda: agent(**told("NN105", since=1.0, remedy="look there")),
    "NN106": lambda: agent(**told("NN106", since=1.0, remedy="look there")),
    "NN107": lambda: agent(skipped=[{"name": "garbage", "reason": "not a key"}]),
    "NN108": lambda: agent(**told("NN108")),
    "NN109": lambda: agent(**told("NN109")),
    "NN111": lambda: agent(ready=False, waiting_for="the registry, silent for 7 s"),
    "NN112": lambda: agent(ready=False, waiting_for="firewall rules that somebody keeps undoing"),
    "NN201": lambda: [silent("netproxy", "refused")],
    "NN202": lambda: proxy(ready=False, waiting_for="the first sync"),
    "NN203": lambda: proxy(ready=False, waiting_for="nftables-ip rules, nftables-ip6 rules"),
    "NN204": lambda: proxy(ready=False, waiting_for="etcd is away", source={"kind": "etcd", "away": "etcd is away"}),
    "NN205": lambda: proxy(skipped=[{"name": "Service default/web", "reason": "spec: no ports"}]),
    "NN209": lambda: proxy(
        skipped=[{"name": "Service default/web", "reason": f"spec.sessionAffinity: {LIMITED}: EPERM"}]
    ),
    "NN206": lambda: proxy(quarantined=[{"name": "default/web", "reason": "nftables-ip: refused"}]),
    "NN207": lambda: proxy(**told("NN207")),
    "NN208": lambda: proxy(**told("NN208")),
}


@pytest.mark.parametrize("code", FAULTS)
def test_each_fault_is_its_finding_and_no_other(code):
    assert [each.code for each in FAULTS[code]()] == [code]


def test_healthy_daemons_have_no_findings():
    assert [*agent(), *proxy()] == []


def test_since_when_is_told_as_the_daemon_says_it():
    [unready] = agent(ready=False, waiting_for="a lease: gone", waiting_since=7.0)
    [skipped] = proxy(skipped=[{"name": "x", "reason": "y", "since": 8.0}])
    [away] = proxy(source={"kind": "etcd", "away": "etcd is away", "since": 9.0})
    assert (unready.since, skipped.since, away.since) == (7.0, 8.0, 9.0)


def test_what_the_kernel_refused_last_is_told_with_what_is_waited_for():
    [finding] = agent(ready=False, waiting_for="the firewall", last_reconcile={"error": "EPERM"})
    assert finding.evidence == "waits for the firewall; last error: EPERM"


def test_the_codes_that_daemons_give_are_those_that_are_tested():
    """So that no daemon says a code that the catalogue lacks."""
    given = {
        code
        for folder in ("netagent", "proxy")
        for path in (ROOT / folder).rglob("*.py")
        for code in re.findall(r'"(NN\d+)"', path.read_text())
    }
    assert given == {"NN104", "NN105", "NN106", "NN108", "NN109", "NN207", "NN208"}
    assert given <= FAULTS.keys()
