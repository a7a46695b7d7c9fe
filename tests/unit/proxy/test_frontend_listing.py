"""The page of all frontends, from more Services than one portion holds."""

import msgspec
import pytest
from builders import json, make_endpoint, make_endpoint_slice, make_service

from proxy import frontend_listing
from proxy.frontend_listing import every_frontend
from proxy.node import Node
from proxy.objects import Kind, ObjectName
from proxy.services import Options
from proxy.sources import Batch, Update
from proxy.tracker import Tracker


def tracked(names):
    tracker = Tracker(Node("node-a"), Options())
    made = []
    for number, name in enumerate(names):
        made.append(make_service(name=name, cluster_ips=(f"10.96.0.{number + 1}",)))
        made.append(
            make_endpoint_slice(service=name, name=name, endpoints=[make_endpoint("10.244.1.5", node="node-a")])
        )
    keys = [ObjectName(each["metadata"]["namespace"], each["metadata"]["name"]) for each in made]
    updates = (Update(Kind(each["kind"]), key, json(each)) for each, key in zip(made, keys, strict=True))
    tracker.apply(Batch(tuple(updates), listed=True))
    return tracker


@pytest.mark.parametrize("number", [0, 1, 2, 5])
async def test_every_service_is_on_it_once(number, monkeypatch):
    monkeypatch.setattr(frontend_listing, "PORTION", 2)
    names = [f"web-{each}" for each in range(number)]
    answer = await every_frontend(tracked(names))
    document = msgspec.json.decode(answer.body)
    assert (answer.status, document["kind"]) == (200, "FrontendList")
    assert sorted({each["service"].partition(":")[0] for each in document["items"]}) == [f"default/{n}" for n in names]
