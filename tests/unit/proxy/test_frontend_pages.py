import msgspec
import pytest
from builders import json, make_endpoint, make_endpoint_slice, make_service

from controlloop.http_server import Answer, pages
from proxy.frontend_pages import FrontendPages
from proxy.node import Node
from proxy.objects import Kind, ObjectName
from proxy.services import Options
from proxy.sources import Batch, Update
from proxy.tracker import Tracker

WEIGHTED = {"nodenet.io/balance": "weighted", "nodenet.io/weights": "10.244.2.5=3"}


@pytest.fixture
def ask():
    """A page's status and items."""
    tracker = Tracker(Node("node-a"), Options())
    made = (
        *(make_service(), make_endpoint_slice(endpoints=[make_endpoint("10.244.1.5", node="node-a")])),
        make_service(name="heavy", cluster_ips=("10.96.0.20",), annotations=WEIGHTED),
        make_endpoint_slice(name="heavy-1", service="heavy", endpoints=["10.244.1.5", "10.244.2.5"]),
    )
    names = [ObjectName(each["metadata"]["namespace"], each["metadata"]["name"]) for each in made]
    updates = (Update(Kind(each["kind"]), name, json(each)) for each, name in zip(made, names, strict=True))
    tracker.apply(Batch(tuple(updates), listed=True))
    shown = FrontendPages(tracker)
    answer = pages({"/frontends/": shown.by_address, "/frontends-of/": shown.by_service})

    def asked(page):
        found = answer(page)
        assert isinstance(found, Answer)
        return found.status, msgspec.json.decode(found.body)["items"] if found.status == 200 else None

    return asked


def test_a_service_and_its_addresses_lead_to_each_other(ask):
    status, (frontend,) = ask("/frontends-of/default/web")
    assert (status, frontend["service"].partition(":")[0]) == (200, "default/web")
    place = f"{frontend['address']}/{frontend['protocol']}/{frontend['port']}"
    assert ask(f"/frontends/{place}") == (200, [frontend])
    assert frontend["endpoints"][0].startswith("10.244.1.5:")


def test_weights_are_told_where_they_make_a_difference(ask):
    assert ask("/frontends-of/default/heavy")[1][0]["weights"] == [1, 3]
    assert ask("/frontends-of/default/web")[1][0]["weights"] is None


def test_what_nobody_has_is_an_empty_list(ask):
    assert ask("/frontends/10.96.99.99/tcp/80") == (200, [])
    assert ask("/frontends-of/default/nobody") == (200, [])
    assert ask("/frontends-of/no-slash") == (200, [])


@pytest.mark.parametrize(
    "page", ["/frontends/", "/frontends/x/tcp/80", "/frontends/10.96.0.1/icmp/80", "/frontends/10.96.0.1"]
)
def test_what_is_no_frontend_is_not_found(ask, page):
    assert ask(page) == (404, None)
