"""In which words a Service's change is told."""

from ipaddress import ip_address

import pytest
from msgspec.structs import replace

from controlloop.history import History
from controlloop.nft.state import Chain as NftChain
from controlloop.nft.state import Key, labelled
from controlloop.rule_words import object_name, value_facts
from proxy.change_history import ChangeHistory
from proxy.frontends import Balance, Endpoint, Frontend, Protocol, ServiceName, ServicePortName
from proxy.objects import Kind, ObjectName
from proxy.sources import Update

WEB = ServiceName("default", "web")
ONE, TWO = (Endpoint(ip_address(f"10.244.1.{number}"), 8080, is_local=True) for number in (1, 2))
FRONTEND = Frontend(
    ServicePortName(WEB, ""), ip_address("10.96.0.1"), Protocol.TCP, 80, Balance.RANDOM, endpoints=(ONE,)
)


@pytest.fixture
def told():
    history = History()
    changes = ChangeHistory(history)
    changes.programmed({WEB: (FRONTEND,)}, lambda _: ())

    def tell(after, *, before=(FRONTEND,), heard=None):
        if heard:
            changes.heard([Update(heard, ObjectName("default", "web"), b"")], {WEB})
        last = history.document()["last"]
        changes.programmed({WEB: after}, lambda _: before)
        return [
            (each["object"], each["action"], each["old"], each["new"], each["trigger"])
            for each in history.document(last)["items"]
        ]

    tell.history = history
    return tell


def test_a_start_is_one_event(told):
    (start,) = told.history.document()["items"]
    assert (start["trigger"], start["new"]) == ("startup", ("1 services", "1 frontends", "1 endpoints"))


def test_endpoints_that_come_and_go(told):
    after = (replace(FRONTEND, endpoints=(TWO,)),)
    assert told(after, heard=Kind.ENDPOINT_SLICE) == [
        ("service default/web", "changed", ("10.244.1.1:8080",), ("10.244.1.2:8080",), "slice")
    ]


def test_a_service_that_comes_or_goes(told):
    place = "10.96.0.1:80/tcp random"
    assert told((), heard=Kind.SERVICE) == [
        ("service default/web", "removed", (place, "10.244.1.1:8080"), (), "service")
    ]
    assert told((FRONTEND,), before=(), heard=Kind.SERVICE)[0][1:4] == ("added", (), (place, "10.244.1.1:8080"))


def test_another_balance(told):
    after = (replace(FRONTEND, balance=Balance.ROUND_ROBIN, affinity_s=600),)
    ((_, _, old, new, _),) = told(after)
    assert (old, new) == (("10.96.0.1:80/tcp random",), ("10.96.0.1:80/tcp round-robin, affinity 600s",))


def test_a_change_that_no_fact_names_is_told_in_numbers(told):
    both = replace(FRONTEND, address=ip_address("10.96.0.2"))
    before = (replace(FRONTEND, endpoints=(ONE, TWO)), replace(both, endpoints=(ONE, TWO)))
    after = (before[0], replace(both, endpoints=(ONE,)))
    ((_, _, old, new, _),) = told(after, before=before)
    assert old == ("10.96.0.2:80/tcp: 2 endpoints, 0 inside, 0 draining",)
    assert new == ("10.96.0.2:80/tcp: 1 endpoints, 0 inside, 0 draining",)


def test_what_did_not_change_is_not_told(told):
    assert told((FRONTEND,)) == []


def test_names_and_facts_of_rules():
    assert object_name(Key("element", "services", "10.96.0.1 . tcp . 80"), "nftables-ip") == (
        "element services 10.96.0.1 . tcp . 80 of nftables-ip"
    )
    assert object_name(("nat", "NETPROXY-SVC"), "iptables-ip") == "chain nat NETPROXY-SVC of iptables-ip"
    assert value_facts(NftChain(None, (labelled("a purpose", "accept"),)))[0].startswith("a purpose #")
    assert value_facts(("-j ONE", "-j TWO")) == ("-j ONE", "-j TWO")
    assert value_facts("") == ("there",)
    assert value_facts(None) == ()
