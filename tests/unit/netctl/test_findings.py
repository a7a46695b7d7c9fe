"""The catalogue, and how a finding reaches people and programs."""

import re

import pytest
from test_judge_daemons import FAULTS as OF_DAEMONS
from test_judge_etcd import FAULTS as OF_ETCD
from test_judge_host import FAULTS as OF_HOST
from test_judge_net import FAULTS as OF_NET

from controlloop.flags import run_command
from netctl.findings.catalogue import CATALOGUE
from netctl.findings.command import report
from netctl.findings.finding import Finding, explained, ordered
from netctl.main import netctl

LOST = Finding("NN104", "10.244.9.0-24", "probes are not answered\x1b[31m", since=1000.0)


def test_every_code_is_raised_by_a_test_that_makes_its_fault():
    raised = OF_DAEMONS.keys() | OF_ETCD.keys() | OF_HOST.keys() | OF_NET.keys()
    assert raised == CATALOGUE.keys()
    assert len(CATALOGUE) >= 40


@pytest.mark.parametrize("code", CATALOGUE)
def test_an_entry_is_whole_and_fits(code):
    entry = CATALOGUE[code]
    assert re.fullmatch(r"NN[1-4]\d\d", code)
    assert len(entry.title) <= 50
    assert not entry.title.endswith(".")
    assert entry.meaning.endswith((".", "`."))
    assert entry.action.endswith((".", ".."))
    assert entry.look
    assert max(map(len, explained(code).splitlines())) <= 80


def test_netctl_can_do_what_entries_tell_to_look_with():
    told = [entry.look.split()[1] for entry in CATALOGUE.values() if entry.look.startswith("netctl ")]
    assert set(told) <= netctl.commands.keys()


def test_titles_are_told_apart():
    titles = [entry.title for entry in CATALOGUE.values()]
    assert len(set(titles)) == len(titles)


def test_a_report_is_the_verdict_then_each_finding_with_the_next_command():
    found = report("net", [LOST], "2 peers")
    [verdict, head, evidence, look, footer] = found.shown("table").splitlines()
    assert verdict == "net: 1 finding (2 peers)"
    assert head.startswith("  ! NN104 peer does not answer: 10.244.9.0-24, for ")
    assert evidence == "      probes are not answered\\x1b[31m"
    assert look == "      next: netctl check net"
    assert footer == "`netctl help NN104` says what it means and what to do."
    assert "      do: Look at that node" in found.shown("wide")
    assert found.shown("name") == "finding/NN104"
    assert found.exit_code == 1


def test_what_could_not_be_looked_at_is_no_good_news():
    found = report("host", [], "1 link", ["nft: not permitted"])
    assert (found.exit_code, found.document()["ok"]) == (3, False)
    assert found.shown("table").splitlines() == [
        "host: incomplete (1 link)",
        "  ? nft: not permitted",
    ]


def test_one_finding_is_told_once_and_what_others_stand_on_comes_first():
    store, overlay = Finding("NN401", "a", "b"), Finding("NN102", "a", "b")
    assert ordered([store, overlay, store]) == [overlay, store]


def test_help_tells_a_code_and_lists_all(capsys):
    assert run_command(netctl, ["help", "nn104"]) == 0
    assert capsys.readouterr().out == explained("NN104") + "\n"
    assert run_command(netctl, ["help", "codes", "-o", "name"]) == 0
    assert capsys.readouterr().out.split() == [f"code/{code}" for code in CATALOGUE]
    assert run_command(netctl, ["help", "status"]) == 0
    assert "Is this node's network healthy" in capsys.readouterr().out
    assert run_command(netctl, ["help", "NN999"]) == 2
    assert "'NN999' is no code and no command" in capsys.readouterr().err


def test_a_cause_that_meets_many_objects_leaves_room_for_others():
    many = [Finding("NN207", f"chain {number:02}", "undone") for number in range(30)]
    found = report("host", [*many, LOST], "all")
    lines = found.shown("table").splitlines()
    assert [line.split(":")[-1] for line in lines if "NN207" in line and "chain" in line] == [
        *(" chain 00", " chain 01", " chain 02")
    ]
    assert "  ! NN207 somebody undoes the proxy's rules: 27 more; -o wide shows them" in lines
    assert sum("NN104" in line for line in lines) == 2
    assert found.shown("wide").count("! NN207") == 30
    assert len(found.document()["items"]) == 31


def test_what_would_take_a_line_to_leave_out_is_shown():
    few = [Finding("NN207", f"chain {number}", "undone") for number in range(4)]
    assert "more" not in report("host", few, "all").shown("table")
