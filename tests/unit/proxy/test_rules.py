"""All families of rules together, and what is told of them."""

from dataclasses import dataclass
from typing import Any

import pytest
from five_services import five_services

from controlloop.delta import Delta, diff
from controlloop.etcd_settings import EtcdSettings
from controlloop.family import Family
from controlloop.iptables.transaction import render
from proxy.config import Settings, shown
from proxy.iptables.chains import OURS
from proxy.iptables.desired import IptablesPlanner
from proxy.nftables.desired import NftablesPlanner
from proxy.node import Surroundings
from proxy.rules import Rules


@dataclass
class Engine:
    desired: Any


def rules_of(planner_type):
    planners = {family: planner_type(Surroundings(family)) for family in Family}
    for service, frontends in five_services().items():
        for planner in planners.values():
            planner.replace(service, frontends, Delta())
    return Rules({family: Engine(planner.objects) for family, planner in planners.items()}, {}, 30)


@pytest.mark.kube_proxy("6.1-26")
def test_the_rules_that_are_counted_are_those_that_are_written():
    rules = rules_of(IptablesPlanner)
    counts = rules.rule_counts()
    for family, engine in rules.engines.items():
        table, written = "", dict.fromkeys(OURS.tables, 0)
        for line in render(diff(engine.desired, {}), OURS).splitlines():
            table = line[1:] if line.startswith("*") else table
            written[table] += line.startswith(("-A", "-I"))
        assert {table: counts[table, family] for table in written} == written


def test_the_rules_of_nftables_are_constant_and_not_counted():
    assert not rules_of(NftablesPlanner).rule_counts()


def test_settings_are_shown_without_secrets():
    etcd = EtcdSettings(("http://127.0.0.1:2379",), "/nodenet", username="proxy", password="hunter2")  # noqa: S106
    document = shown(Settings("node-1", etcd))
    assert "hunter2" not in str(document)
    assert document["source"]["username"] == "proxy"
    assert document["mode"] == "iptables"
