"""healthz and livez: a change that waits too long, in one family; a node on its way out."""

import json

import pytest

from proxy.liveness import Liveness


@pytest.fixture
def now():
    return [1000.0]


@pytest.fixture
def liveness(now):
    return Liveness(("ip", "ip6"), 60, clock=lambda: now[0])


@pytest.mark.kube_proxy("6.1-43")
def test_a_proxy_without_changes_is_healthy_for_ever(liveness, now):
    now[0] += 10_000
    assert liveness.healthz().status == 200


@pytest.mark.kube_proxy("6.1-43")
def test_a_change_that_waits_too_long_in_one_family_is_an_illness(liveness, now):
    liveness.queued()
    liveness.written("ip")
    now[0] += 59
    liveness.queued()  # one more does not start the clock anew
    assert liveness.healthz().status == 200
    now[0] += 2
    answer = json.loads(liveness.livez().body)
    assert (liveness.healthz().status, liveness.livez().status) == (503, 503)
    assert [answer["status"][family]["healthy"] for family in ("ip", "ip6")] == [True, False]
    assert answer["healthy"] is False
    liveness.written("ip6")
    assert liveness.healthz().status == 200


@pytest.mark.kube_proxy("6.1-43")
def test_a_node_on_its_way_out_is_alive_and_gets_no_traffic(liveness):
    liveness.node_eligible = False
    assert (liveness.healthz().status, liveness.livez().status) == (503, 200)


def test_the_last_update_is_now_while_all_is_well(liveness, now):
    liveness.queued()
    liveness.written("ip")
    liveness.written("ip6")
    now[0] += 30
    well = json.loads(liveness.healthz().body)
    assert well["lastUpdated"] == well["currentTime"] == "1970-01-01T00:17:10Z"
    liveness.queued()
    now[0] += 70
    ill = json.loads(liveness.healthz().body)
    assert ill["lastUpdated"] == "1970-01-01T00:16:40Z"
