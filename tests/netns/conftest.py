"""Labs for the packet tests: real etcd, real daemons, real packets. One for each module and mode, all named apart."""

import pytest
from proxy_lab import VARIANTS, bring_up_proxy
from whole_lab import bring_up

from lab.cluster import can_run, sweep


def pytest_collection_modifyitems(items):
    reason = can_run()
    for item in items:
        if reason and "tests/netns" in str(item.path):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def _no_leftovers():
    """A test run that was killed leaves its lab; the next one takes it down."""
    sweep()


@pytest.fixture(scope="module", params=["nftables", "iptables"])
def cluster(request):
    """Three nodes, two pods on each, a client outside, in one mode."""
    made = bring_up(mode=request.param)
    yield made
    made.down()


@pytest.fixture(scope="session", params=VARIANTS)
def proxy(request):
    """One node with a netproxy on an API server, for all modules, in one variant."""
    made = bring_up_proxy(request.param)
    yield made
    made.down()
