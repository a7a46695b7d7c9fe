"""What nft lists, as a state. That nft lists so is for the contract tests to say."""

import json

from controlloop.nft.listing import elements, parse
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


LISTED = """\
table ip netproxy {
	map services {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { %s }
	}
}
"""


def read(text):
    return {key.element: value for key, value in elements("services", (LISTED % text).encode())}


def test_elements_in_lines():
    assert read("10.96.0.1 . tcp . 80 : goto web,\n\t\t\t     fd00::1 . udp . 53 : drop") == {
        "10.96.0.1 . tcp . 80": "goto web",
        "fd00::1 . udp . 53": "drop",
    }


def test_elements_of_a_set():
    assert read("10.96.0.1, 10.96.0.2,\n\t\t\t     10.96.0.3") == {f"10.96.0.{n}": "" for n in (1, 2, 3)}


def test_what_stands_beside_an_element_is_not_its_key():
    assert read(
        '10.0.0.1 counter packets 3 bytes 180 : drop, 10.0.0.2 timeout 3h expires 2h59m3s100ms comment "a, b : c",'
        ' 10.0.0.3 comment "}" : goto web'
    ) == {"10.0.0.1": "drop", "10.0.0.2": "", "10.0.0.3": "goto web"}


def test_nothing_in_it_and_nothing_there():
    empty = "table ip netproxy {\n\tset hairpin {\n\t\ttype ipv4_addr\n\t}\n}\n"
    assert not list(elements("hairpin", empty.encode()))
    assert not list(elements("hairpin", b""))
