"""What nft lists, as a state. That nft lists so is for the contract tests to say."""

import json

from controlloop.nft.listing import parse
from controlloop.nft.state import Chain, Container, Hook, Key, Rule


def listing(*entries):
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *entries]}).encode()


def test_the_structure_of_one_table():
    state = parse(
        listing(
            {"table": {"family": "ip", "name": "ours"}},
            {"map": {"table": "ours", "name": "services", "type": ["ipv4_addr", "inet_service"], "map": "verdict"}},
            {"set": {"table": "ours", "name": "clients", "type": "ipv4_addr", "flags": ["timeout"], "size": 9}},
            {"chain": {"table": "ours", "name": "input", "type": "filter", "hook": "input", "prio": -5}},
            {"chain": {"table": "ours", "name": "web"}},
            {"rule": {"table": "ours", "chain": "web", "comment": "mine #1", "expr": []}},
            {"rule": {"table": "ours", "chain": "web", "expr": []}},
            {"chain": {"table": "foreign", "name": "web"}},
            {"rule": {"table": "foreign", "chain": "web", "comment": "mine #1"}},
        ),
        "ours",
    )
    assert state == {
        Key("container", "services"): Container("map", "ipv4_addr . inet_service : verdict"),
        Key("container", "clients"): Container("set", "ipv4_addr", is_dynamic=True),
        Key("chain", "input"): Chain(Hook("filter", "input", -5), ()),
        Key("chain", "web"): Chain(None, (Rule("mine #1"), Rule(""))),
    }


def test_a_map_of_several_types():
    entry = {"map": {"table": "ours", "name": "m", "type": "mark", "map": ["ipv4_addr", "inet_service"]}}
    assert parse(listing(entry), "ours")[Key("container", "m")].type == "mark : ipv4_addr . inet_service"


def test_a_set_that_counts_is_another_one_than_one_that_does_not():
    plain = {"table": "ours", "name": "called", "type": "ipv4_addr"}
    sets = [parse(listing({"set": each}), "ours") for each in (plain, {**plain, "stmt": [{"counter": None}]})]
    key = Key("container", "called")
    assert [each[key] for each in sets] == [Container("set", "ipv4_addr"), Container("set", "ipv4_addr", counts=True)]
    assert sets[0] != sets[1]
