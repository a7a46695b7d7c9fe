"""What a running netproxy tells: its ports, its metrics, health checks of load balancers, Events; and what it does
while the API server is away."""

import json
import re
from signal import SIGTERM

import pytest
from deadline import becomes, eventually
from proxy_lab import NODE, own_node

from lab.ready import NotStartedError

HEALTHZ, METRICS = "http://10.10.0.1:10256", "http://127.0.0.1:10249"
SAMPLE = re.compile(r'[a-z][a-z0-9_]*(\{([a-z_]+="[^"\\]*",?)+\})? [0-9.e+-]+')
PREFIX = "kubeproxy_sync_proxy_rules"


@pytest.mark.kube_proxy("6.2-39", "6.1-43")
def test_the_ports_of_kube_proxy_answer_as_its_own(proxy):
    assert proxy.page(f"{METRICS}/proxyMode") == (200, proxy.variant.partition("-")[0])
    assert proxy.page(f"{METRICS}/healthz") == (200, "ok")
    assert proxy.page(f"{METRICS}/readyz")[0] == 200
    assert json.loads(proxy.page(f"{METRICS}/configz")[1])["node_name"] == NODE
    for page in ("healthz", "livez"):
        status, body = proxy.page(f"{HEALTHZ}/{page}", "client")
        assert status == 200
        assert json.loads(body)["healthy"]
    assert proxy.page("http://10.10.0.1:10249/metrics", "client")[0] == 0, "metrics are for this node alone"


@pytest.mark.kube_proxy("6.1-43", "gap 3.9-7")
def test_a_node_that_is_about_to_go_is_alive_and_not_healthy(proxy):
    going = own_node()
    going["spec"]["taints"] = [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]
    proxy.put_objects("nodes", going)
    eventually(lambda: proxy.page(f"{HEALTHZ}/healthz", "client"), that=lambda page: page[0] == 503)
    assert proxy.page(f"{HEALTHZ}/livez", "client")[0] == 200
    proxy.put_objects("nodes", own_node())
    eventually(lambda: proxy.page(f"{HEALTHZ}/healthz", "client"), that=lambda page: page[0] == 200)


def test_metrics_can_be_read_and_count_what_happens_under_the_names_of_kube_proxy(proxy):
    _, text = proxy.page(f"{METRICS}/metrics")
    assert [line for line in text.splitlines() if not line.startswith("#") and not SAMPLE.fullmatch(line)] == []
    before = proxy.metrics()
    proxy.serve("counted", "10.96.30.1", ["pod-1-1"])
    proxy.answers("10.96.30.1", ["pod-1-1"])
    # A connection may come through before those who wrote the rules have noted how long that took.
    count = f'{PREFIX}_duration_seconds_count{{ip_family="IPv4"}}'
    eventually(lambda: proxy.metrics()[count] > before[count] and proxy.is_ready())
    now = proxy.metrics()

    def grown(name):
        return now[name] - before[name]

    assert grown(f"{PREFIX}_service_changes_total") == 1
    assert grown(f"{PREFIX}_endpoint_changes_total") == 1
    assert grown("netproxy_services") == grown("netproxy_frontends") == grown("netproxy_endpoints") == 1
    assert now[f"{PREFIX}_service_changes_pending"] == 0
    assert now[f"{PREFIX}_last_timestamp_seconds"] >= now[f"{PREFIX}_last_queued_timestamp_seconds"]
    assert now["netproxy_ready"] == 1
    proxy.take_away("counted")


HEALTH_CHECK = "http://10.10.0.1:32101"


@pytest.mark.kube_proxy("6.1-10", "6.1-42", "6.2-21", "6.2-48")
def test_a_load_balancer_is_told_whether_this_node_has_endpoints(proxy):
    balanced = {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 32101,
        "status": {"loadBalancer": {"ingress": [{"ip": "10.96.31.1"}]}},
    }
    # A firewall of the host that lets nothing in but what somebody asks for, as kube-proxy does in iptables mode.
    closed = f"{proxy.variant} -w %s INPUT -p tcp --dport 32101 -j DROP"
    if proxy.variant != "nftables":
        proxy.sh(closed % "-A")
    proxy.serve("balanced", "10.96.30.2", ["pod-1-1", "pod-1-2"], **balanced)
    becomes(lambda: health_check(proxy), (200, 2))
    proxy.answers("10.96.31.1", ["pod-1-1", "pod-1-2"], caller="client")
    leaving = {"ready": False, "serving": True, "terminating": True}
    proxy.back("balanced", ["pod-1-1", "pod-1-2"], by_pod={"pod-1-1": leaving, "pod-1-2": leaving})
    becomes(lambda: health_check(proxy), (503, 0))
    proxy.answers("10.96.31.1", ["pod-1-1", "pod-1-2"], caller="client")
    proxy.take_away("balanced")
    eventually(lambda: proxy.page(HEALTH_CHECK, "client")[0] == 0)
    if proxy.variant != "nftables":
        assert "32101 -j ACCEPT" not in proxy.sh(f"{proxy.variant}-save -t filter")
        proxy.sh(closed % "-D")


def health_check(proxy):
    """(status, local endpoints) as the load balancer sees them."""
    status, body = proxy.page(HEALTH_CHECK, "client")
    return status, json.loads(body)["localEndpoints"] if body else None


def test_a_health_check_whose_port_is_taken_is_an_event_and_a_finding_and_is_served_when_it_is_free(proxy):
    taken = proxy.node.popen(["python3", "-m", "http.server", "--bind", "0.0.0.0", "32102"])
    try:
        eventually(lambda: proxy.page("http://10.10.0.1:32102/", "client")[0] == 200)
        proxy.serve(
            "blocked",
            "10.96.30.3",
            ["pod-1-1"],
            type="LoadBalancer",
            externalTrafficPolicy="Local",
            healthCheckNodePort=32102,
        )
        (finding,) = eventually(lambda: proxy.status()["findings"])
        assert (finding["code"], finding["name"]) == ("NN208", "health check of default/blocked")
        (event,) = eventually(lambda: proxy.events("FailedToStartServiceHealthcheck"))
        assert event["regarding"]["name"] == "blocked"
        assert "32102" in event["note"]
    finally:
        taken.kill()
        taken.wait()
    proxy.back("blocked", ["pod-1-2"])  # with the next sync, whatever that is about
    eventually(lambda: '"localEndpoints"' in proxy.page("http://10.10.0.1:32102/", "client")[1])
    eventually(lambda: not proxy.status()["findings"])
    proxy.take_away("blocked")


def test_a_start_is_an_event(proxy):
    before = len(proxy.events("Starting"))
    assert before
    proxy.stop(NODE, "netproxy", SIGTERM)
    proxy.start_daemons([(NODE, "netproxy")])
    (*_, event) = eventually(lambda: proxy.events("Starting")[before:])
    assert event["regarding"]["name"] == NODE


def test_a_port_that_must_be_had_and_cannot_is_the_last_event_of_a_daemon(proxy, tmp_path_factory):
    proxy.stop(NODE, "netproxy", SIGTERM)
    taken = proxy.node.popen(["python3", "-m", "http.server", "--bind", "127.0.0.1", "10249"])
    proxy.flags = ("--bind-address-hard-fail",)
    try:
        eventually(lambda: proxy.page(METRICS)[0] == 200)
        of_this_run = re.escape(str(tmp_path_factory.getbasetemp()))
        with pytest.raises(NotStartedError, match=rf"10249.* \(its log: {of_this_run}/"):
            proxy.start_daemons([(NODE, "netproxy")])
        (event,) = proxy.events("FailedToStartMetricServer")
        assert "10249" in event["note"]
    finally:
        del proxy.flags
        taken.kill()
        taken.wait()
        proxy.start_daemons([(NODE, "netproxy")])


@pytest.mark.kube_proxy("6.2-9")
def test_while_the_api_server_is_away_all_goes_on_and_what_changed_meanwhile_arrives(proxy):
    proxy.serve("lasting", "10.96.30.4", ["pod-1-1"])
    proxy.serve("leaving", "10.96.30.5", ["pod-1-1"])
    proxy.answers("10.96.30.4", ["pod-1-1"])
    proxy.answers("10.96.30.5", ["pod-1-1"])
    with proxy.server.away():
        proxy.back("lasting", ["pod-1-2"])
        proxy.take_away("leaving")
        eventually(lambda: proxy.status()["source"]["away"])
        assert proxy.is_ready(), "the kernel holds what was last asked for"
        assert proxy.call("pod-1-3", "10.96.30.4") == "pod-1-1"
    becomes(lambda: proxy.call("pod-1-3", "10.96.30.4", within_s=0.5), "pod-1-2")
    eventually(lambda: not proxy.status()["source"]["away"])
    assert proxy.call("pod-1-3", "10.96.30.5", within_s=0.3) != "pod-1-1"
    proxy.take_away("lasting")
