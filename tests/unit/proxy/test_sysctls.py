"""What the kernel is told of conntrack, and what happens when it does not listen."""

import pytest

from proxy import sysctls
from proxy.config import ConntrackSettings
from proxy.sysctls import Sysctl, conntrack_behaviour, conntrack_size

MAX, BUCKETS = "net/netfilter/nf_conntrack_max", "/sys/module/nf_conntrack/parameters/hashsize"


@pytest.mark.kube_proxy("6.1-40")
@pytest.mark.parametrize(
    ("per_core", "least", "cpus", "flows"),
    [
        pytest.param(32_768, 131_072, 8, 262_144, id="by CPU"),
        pytest.param(32_768, 131_072, 2, 131_072, id="the floor"),
        pytest.param(32_768, 131_072, 64, 1_048_576, id="the cap"),
    ],
)
def test_the_table_grows_with_the_machine(per_core, least, cpus, flows):
    asked = list(conntrack_size(ConntrackSettings(max_per_core=per_core, min=least), cpus))
    assert asked == [Sysctl(MAX, flows), Sysctl(BUCKETS, flows // 4, at_least=True)]


@pytest.mark.kube_proxy("6.1-40")
def test_nothing_is_touched_that_is_zero():
    settings = ConntrackSettings(max_per_core=0, tcp_established_s=0, tcp_close_wait_s=0)
    assert not [*conntrack_size(settings, 8), *conntrack_behaviour(settings)]


@pytest.mark.kube_proxy("6.1-40")
def test_timeouts_are_in_seconds():
    asked = {one.path.rpartition("nf_conntrack_")[2]: one.value for one in conntrack_behaviour(ConntrackSettings())}
    assert asked == {"tcp_timeout_established": 86_400, "tcp_timeout_close_wait": 3_600}


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """One file that stands for all that is wanted."""
    file = tmp_path / "value"
    monkeypatch.setattr(sysctls, "wanted", lambda *_: [Sysctl(str(file), 100, at_least=True)])
    return file


@pytest.mark.parametrize(("was", "now"), [("50", "100"), ("100", "100"), ("200", "200")])
def test_a_larger_value_stays_where_more_is_as_good(kernel, was, now):
    kernel.write_text(was)
    assert sysctls.apply(None) == []
    assert kernel.read_text().strip() == now


def test_what_does_not_exist_is_no_problem(kernel):
    assert sysctls.apply(None) == []


def test_what_cannot_be_read_is_told_by_name(kernel):
    kernel.mkdir()
    (problem,) = sysctls.apply(None)
    assert str(kernel) in problem
