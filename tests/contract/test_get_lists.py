"""`netctl get rules|routes|fdb` on a real kernel: each with whom it is for."""

import json

import pytest
from rules_and_overlays import FOREIGN, Asked, counters, engines, overlay, overlay_node, page_of, record, run, variant
from schemas import validated

from controlloop.client import UnreachableError
from controlloop.family import Family
from netagent.instance import FIRST
from netctl.get import overlay_lists, rule_list
from netctl.node import LiveNode

__all__ = ["counters", "engines", "overlay", "variant"]


def shown(capsys, code, expected=0):
    assert code == expected
    return capsys.readouterr().out


def document(capsys, code, expected=0):
    return validated(json.loads(shown(capsys, code, expected)))["items"]


def test_every_rule_of_ours_is_listed_with_its_owner_and_a_foreign_one_without(engines, variant, capsys):
    node = Asked("netproxy", page_of(engines))
    items = document(capsys, rule_list.show(node, "", "json"))
    owners = {item["owner"] for item in items}
    assert {"Service default/web", "Service default/six", "Service kube-system/dns", "netproxy"} <= owners
    assert None not in owners
    run(*FOREIGN[variant])
    foreign = [item for item in document(capsys, rule_list.show(node, "", "json")) if item["owner"] is None]
    assert [("10.96.0.1" in item["rule"]) for item in foreign] == [True]


def test_rules_of_one_service_are_its_own(engines, capsys):
    node = Asked("netproxy", page_of(engines))
    text = shown(capsys, rule_list.show(node, "default/web", "wide"))
    assert "10.96.0.1" in text
    assert "10.96.0.2 " not in text
    assert shown(capsys, rule_list.show(node, "default/none", "name")) == ""


def test_a_table_of_rules_fits_80_columns_and_cuts_visibly(engines, capsys):
    text = shown(capsys, rule_list.show(Asked("netproxy", page_of(engines)), "", "table"))
    assert max(map(len, text.splitlines())) <= 80
    assert "..." in text


def test_rules_count(engines, counters, variant, capsys):
    items = document(capsys, rule_list.show(Asked("netproxy", page_of(engines, counters)), "", "json"))
    counts = {item["place"]: item["packets"] is not None for item in items if item["chain"].startswith(("@", "NET"))}
    beside = {counts.pop(f"{family.nft} netproxy-counters") for family in Family}
    assert (beside, set(counts.values())) == ({True}, {variant != "nftables"})
    assert None not in {item["owner"] for item in items}


def test_without_the_daemon_rules_are_listed_without_owners(engines, tmp_path, capsys):
    assert rule_list.show(LiveNode(tmp_path), "", "json") == 3
    said = capsys.readouterr()
    items = validated(json.loads(said.out))["items"]
    assert items
    assert {item["owner"] for item in items} == {None}
    assert "owners are not known" in said.err


def test_routes_lead_to_their_peers(overlay, capsys):
    run("ip", "route", "add", "10.99.0.0/16", "via", "10.244.2.0", "dev", "flannel.1", "onlink")
    items = document(capsys, overlay_lists.show(overlay_node(overlay), "routes", "", "json"))
    assert {(item["prefix"], item["peer"], item["state"]) for item in items} == {
        ("10.244.2.0/24", record(2).key, "ok"),
        ("10.244.3.0/24", record(3).key, "ok"),
        ("fd00:244:0:2::/64", record(2).key, "ok"),
        ("fd00:244:0:3::/64", record(3).key, "ok"),
        ("10.99.0.0/16", None, "foreign"),
    }


def test_entries_of_one_peer_are_its_own_and_a_changed_one_is_a_finding(overlay, capsys):
    node, key = overlay_node(overlay), record(2).key
    items = document(capsys, overlay_lists.show(node, "fdb", key, "json"))
    assert {(item["kind"], item["peer"]) for item in items} == {("fdb", key), ("neighbor", key)}
    assert len(items) == 4
    run("bridge", "fdb", "replace", "02:00:00:00:04:02", "dev", "flannel.1", "dst", "192.0.2.99")
    [changed] = [
        item for item in document(capsys, overlay_lists.show(node, "fdb", key, "json"), 1) if item["state"] != "ok"
    ]
    assert (changed["leads_to"], changed["state"]) == ("192.0.2.99", "changed")


@pytest.mark.parametrize("noun", ["routes", "fdb"])
@pytest.mark.parametrize("form", ["table", "wide", "yaml", "name"])
def test_every_form_is_printed(overlay, capsys, noun, form):
    text = shown(capsys, overlay_lists.show(overlay_node(overlay), noun, "", form))
    assert "10.244.2.0" in text
    if form == "table":
        assert max(map(len, text.splitlines())) <= 80


def test_without_the_agent_its_routes_are_known_by_their_mark(overlay, capsys):
    class Silent(LiveNode):
        daemons = ("netagent",)

        def page(self, daemon, _page):
            raise UnreachableError(f"{daemon} is away")

    items = document(capsys, overlay_lists.show(Silent(), "routes", "", "json"), 3)
    assert {item["state"] for item in items} == {"unknown"}
    assert {item["protocol"] for item in items} == {FIRST.protocol}
    assert len(items) == 4
