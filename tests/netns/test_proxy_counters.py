"""What a running netproxy tells of the use of each Service, when it is asked to count."""

import json
from signal import SIGTERM

import pytest
from deadline import eventually
from proxy_lab import NODE, VARIANTS, bring_up_proxy

pytestmark = pytest.mark.kube_proxy("gap 5.7-12")

ADDRESS, OTHER = "10.96.40.1", "10.96.40.2"
LABELS = '{namespace="default",service="counted",port="main",protocol="tcp"}'
CALLS = 5


@pytest.fixture(scope="module", params=VARIANTS)
def proxy(request):
    made = bring_up_proxy(request.param, flags=["--service-counters"], name="counts")
    yield made
    made.down()


def counted(proxy):
    """Connections and bytes, as /metrics has them."""
    found = proxy.metrics()
    return tuple(found.get(f"netproxy_service_{metric}_total{LABELS}", 0) for metric in ("connections", "bytes"))


def in_kernel(proxy):
    """Connections. /metrics may be a second old."""
    listed = json.loads(proxy.sh("nft --json list set ip netproxy-counters connections"))["nftables"]
    (elements,) = (each["set"]["elem"] for each in listed if "set" in each)
    (packets,) = (each["elem"]["counter"]["packets"] for each in elements if ADDRESS in each["elem"]["val"]["concat"])
    return packets


def changed(proxy):
    """Its endpoint and its policy are others, and another Service comes and goes."""
    proxy.serve("counted", ADDRESS, ["pod-1-2"], sessionAffinity="ClientIP")
    proxy.serve("another", OTHER, ["pod-1-1"])
    proxy.answers(OTHER, ["pod-1-1"])
    proxy.take_away("another")
    eventually(lambda: proxy.call("pod-1-3", OTHER, within_s=0.5) != "pod-1-1")


def damaged(proxy):
    before = repairs(proxy)
    chain = "chain ip netproxy-counters count-connections"
    proxy.sh(f"nft flush {chain}")
    eventually(lambda: repairs(proxy) > before and "to a service" in proxy.sh(f"nft list {chain}"))


def audits(proxy):
    return proxy.status()["rules"]["counters-ip"]["audits"]


def repairs(proxy):
    return proxy.status()["rules"]["counters-ip"]["repaired"]


def restarted(proxy):
    proxy.stop(NODE, "netproxy", SIGTERM)
    proxy.start_daemons([(NODE, "netproxy")])


@pytest.mark.parametrize("event", [changed, damaged, restarted])
def test_what_is_counted_outlives(proxy, event):
    proxy.serve("counted", ADDRESS, ["pod-1-1"])
    proxy.answers(ADDRESS, ["pod-1-1"])
    before = in_kernel(proxy)
    event(proxy)
    eventually(proxy.is_ready)
    for _ in range(CALLS):
        assert proxy.call("pod-1-3", ADDRESS).startswith("pod-1")
    eventually(lambda: counted(proxy)[0] >= before + CALLS)
    connections, size = counted(proxy)
    assert connections == before + CALLS
    assert size > connections * 200, "a handshake, an answer and an end, both ways"


def test_traffic_is_no_drift(proxy):
    proxy.serve("counted", ADDRESS, ["pod-1-1"])
    proxy.answers(ADDRESS, ["pod-1-1"])
    mended, looked = repairs(proxy), audits(proxy)
    for _ in range(CALLS):
        proxy.call("pod-1-3", ADDRESS)
    # After a set that is not ours, all is looked at.
    proxy.sh("nft add set ip netproxy-counters guest '{ type mark; }'")
    eventually(lambda: audits(proxy) > looked)
    eventually(lambda: proxy.is_ready() and repairs(proxy) > mended)
    assert repairs(proxy) == mended + 1


def test_a_daemon_that_does_not_count_takes_the_table_away(proxy, monkeypatch):
    proxy.stop(NODE, "netproxy", SIGTERM)
    monkeypatch.setattr(proxy, "flags", ())
    proxy.start_daemons([(NODE, "netproxy")])
    eventually(lambda: "netproxy-counters" not in proxy.sh("nft list tables"))
    proxy.stop(NODE, "netproxy", SIGTERM)
    monkeypatch.undo()
    proxy.start_daemons([(NODE, "netproxy")])
    eventually(lambda: "netproxy-counters" in proxy.sh("nft list tables"))
