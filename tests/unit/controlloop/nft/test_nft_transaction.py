"""What is said to nft, and in which order."""

from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.nft.state import Chain, Container, Hook, Key, labelled
from controlloop.nft.transaction import transaction

CLIENTS = Container("set", "ipv4_addr", "type ipv4_addr; flags dynamic", is_dynamic=True)
SERVICES = Container("map", "inet_service : verdict", "type inet_service : verdict")
RULE, OTHER = labelled("one", "ip saddr @clients accept"), labelled("other", "accept")
HOOK = Hook("filter", "input", 0)


def lines(put=(), drop=(), *, replace=False):
    delta = Delta(dict(put), dict(drop))
    text = transaction(Family.V4, "t", delta, replace=replace)
    return [line.removeprefix("add table ip t").strip() for line in text.splitlines()][1:]


def test_what_comes_is_declared_before_it_is_used():
    put = {
        Key("element", "services", "80"): "goto web",
        Key("chain", "web"): Chain(None, (RULE,)),
        Key("container", "services"): SERVICES,
        Key("container", "clients"): CLIENTS,
        Key("chain", "input"): Chain(HOOK, ()),
    }
    assert lines(put) == [
        "add map ip t services { type inet_service : verdict; }",
        "add set ip t clients { type ipv4_addr; flags dynamic; }",
        "add chain ip t web",
        "add chain ip t input { type filter hook input priority 0; policy accept; }",
        f'add rule ip t web ip saddr @clients accept comment "{RULE.label}"',
        "add element ip t services { 80 : goto web }",
    ]


def test_what_goes_is_not_used_any_more():
    drop = {
        Key("container", "clients"): CLIENTS,
        Key("chain", "web"): Chain(None, (RULE,)),
        Key("element", "services", "80"): "goto web",
    }
    assert lines(drop=drop) == [
        "delete element ip t services { 80 }",
        "flush chain ip t web",
        "delete set ip t clients",
        "delete chain ip t web",
    ]


def test_a_chain_that_changes_stays_and_an_element_is_put_anew():
    chain, element = Key("chain", "web"), Key("element", "services", "80")
    put = {chain: Chain(None, (OTHER,)), element: "drop"}
    drop = {chain: Chain(None, (RULE,)), element: "goto web"}
    assert lines(put, drop) == [
        "delete element ip t services { 80 }",
        "flush chain ip t web",
        "add chain ip t web",
        f'add rule ip t web accept comment "{OTHER.label}"',
        "add element ip t services { 80 : drop }",
    ]


def test_a_chain_of_another_hook_is_made_anew():
    key = Key("chain", "input")
    assert lines({key: Chain(HOOK, ())}, {key: Chain(Hook("filter", "output", 0), ())}) == [
        "flush chain ip t input",
        "delete chain ip t input",
        "add chain ip t input { type filter hook input priority 0; policy accept; }",
    ]


def test_elements_of_one_container_are_one_command():
    put = {Key("element", "peers", str(number)): "" for number in range(3)}
    assert lines(put) == ["add element ip t peers { 0, 1, 2 }"]


def test_a_table_that_is_replaced_is_empty_first():
    text = transaction(Family.V6, "t", Delta({Key("chain", "web"): Chain(None, ())}), replace=True)
    assert text.splitlines() == ["add table ip6 t", "delete table ip6 t", "add table ip6 t", "add chain ip6 t web"]
