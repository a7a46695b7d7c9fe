"""KubeProxyConfiguration: what is read, what is passed over by name, what is refused, and what happens on a change."""

import asyncio
from contextlib import aclosing
from ipaddress import ip_network

import pytest
import yaml
from deadline import PATIENCE_S
from hypothesis import given
from hypothesis import strategies as st

from controlloop.errors import OperatorError
from controlloop.family import Family
from controlloop.goflags import parse_flags
from proxy.__main__ import run
from proxy.command_line import Place, configured_by, settings_from
from proxy.config import DetectLocal, KubernetesSettings, ProxyMode, apply_live
from proxy.config_file import changed_settings, read_settings
from proxy.configuration import read_configuration
from proxy.flags import FIELDS as PROXY_FIELDS
from proxy.flags import GROUPS

HEAD = {"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration"}
PLACE = Place("node-a", in_pod=False)

KUBEADM = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  networkName: ""
"""


@pytest.fixture
def write(tmp_path):
    """Write a configuration; give back the path."""

    def written(said):
        path = tmp_path / "config.yaml"
        path.write_text(said if isinstance(said, str) else yaml.safe_dump({**HEAD, **said}))
        return path

    return written


def flags_of(path, *argv):
    return parse_flags(GROUPS, [f"--config={path}", *argv], {}, "NETPROXY_")


def settings(path, *argv):
    return read_settings(flags_of(path, *argv), PLACE)


@pytest.mark.kube_proxy("6.1-46")
def test_what_kubeadm_writes_is_kube_proxys_defaults_without_a_remark(write):
    found = settings(write(KUBEADM))
    plain = read_settings(parse_flags(GROUPS, ["--kubeconfig=/k"], {}, ""), PLACE)
    assert found.remarks == ()
    assert isinstance(found.source, KubernetesSettings)
    assert found.source.kubeconfig.text == "/var/lib/kube-proxy/kubeconfig.conf"
    assert found.source.kubeconfig.source.endswith("config.yaml: clientConnection.kubeconfig")
    assert found.detection.cluster_cidrs == {Family.V4: ip_network("10.244.0.0/16")}
    for name in ("mode", "conntrack", "masquerade_bit", "localhost_node_ports", "sync_period_s", "oom_score_adj"):
        assert getattr(found, name) == getattr(plain, name), name
    assert (found.healthz.port, found.metrics.port) == (10_256, 10_249)


@pytest.mark.kube_proxy("6.1-46")
def test_the_section_of_the_mode_counts(write):
    found = settings(
        write(
            {
                "mode": "nftables",
                "iptables": {"masqueradeBit": 3, "syncPeriod": "10s"},
                "nftables": {"masqueradeBit": 5, "masqueradeAll": True, "syncPeriod": "1m"},
                "detectLocalMode": "InterfaceNamePrefix",
                "detectLocal": {"interfaceNamePrefix": "veth"},
                "conntrack": {"tcpBeLiberal": True, "maxPerCore": 0},
            }
        )
    )
    assert (found.mode, found.masquerade_bit, found.masquerade_all) == (ProxyMode.NFTABLES, 5, True)
    assert found.sync_period_s == 60
    assert (found.detection.mode, found.detection.interface) == (DetectLocal.INTERFACE_NAME_PREFIX, "veth")
    assert (found.conntrack.tcp_be_liberal, found.conntrack.max_per_core) == (True, 0)


@pytest.mark.kube_proxy("6.1-46")
def test_unknown_and_idle_fields_are_named_one_by_one_and_all_else_counts(write):
    path = write(
        {
            "mode": "nftables",
            "moed": "nftables",
            "iptables": {"masqueradeAl": True},
            "featureGates": {"NFTablesProxyMode": True},
            "clientConnection": {"qps": 50, "kubeconfig": "/k"},
            "ipvs": {"scheduler": "rr"},
        }
    )
    found = settings(path)
    assert found.mode is ProxyMode.NFTABLES
    name = f"--config {path}: "
    assert [(remark.name.removeprefix(name), remark.reason) for remark in found.remarks] == [
        ("iptables.masqueradeAl", "there is no such field, it is passed over"),
        ("moed", "there is no such field, it is passed over"),
        ("featureGates", "it has no effect here"),
        ("clientConnection.qps", "it has no effect here"),
        ("ipvs", "it has no effect here"),
    ]


@pytest.mark.kube_proxy("6.1-46")
@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("[", "did not find expected node content"),
        ("- 1\n", "not an object"),
        ("a: 1\n---\nb: 1\n", "want one document, not 2"),
        ("", "want one document, not 0"),
        ("kind: KubeProxyConfiguration\n", "apiVersion None: want kubeproxy.config.k8s.io/v1alpha1"),
        ({"kind": "KubeletConfiguration"}, "kind KubeletConfiguration: want KubeProxyConfiguration"),
        ({"mode": "ipvs"}, "mode ipvs: not supported; use nftables, or else iptables"),
        ({"mode": 7}, "mode 7: expected `str`, got `int`"),
        ({"iptables": {"masqueradeBit": 40}}, "iptables.masqueradeBit 40: want a whole number from 0 to 31"),
        ({"iptables": {"masqueradeBit": "x"}}, "iptables.masqueradeBit x: expected `int`, got `str`"),
        ({"nftables": {"syncPeriod": "-1s"}}, "nftables.syncPeriod -1s: must be above 0"),
        ({"nodePortAddresses": ["10.0.0.0/8", 3]}, "nodePortAddresses[1] 3: expected `str`, got `int`"),
        ({"nodePortAddresses": ["primary", "10.0.0.0/8"]}, "nodePortAddresses primary: primary stands alone"),
        ({"clusterCIDR": "x"}, "clusterCIDR x: not a network in CIDR form"),
        ({"healthzBindAddress": "x:1"}, "healthzBindAddress x:1: not an IP address"),
        (
            {"detectLocalMode": "BridgeInterface"},
            "detectLocal.bridgeInterface '': detectLocalMode BridgeInterface needs",
        ),
        ({"conntrack": []}, "conntrack []: expected `object`, got `array`"),
    ],
)
def test_what_cannot_be_used_is_named_with_file_field_and_value(write, said, words):
    path = write(said)
    with pytest.raises(OperatorError) as caught:
        settings(path)
    assert str(caught.value).startswith(f"--config {path}: ")
    assert words in str(caught.value)


def test_of_the_flags_only_ours_the_logs_and_the_name_count_beside_a_file(write):
    path = write({"mode": "nftables", "hostnameOverride": "from-file", "logging": {"verbosity": 4}})
    found = settings(path, "--proxy-mode=iptables", "--hostname-override=from-flag", "--balance=round-robin")
    assert (found.mode, found.node_name, found.balance.value) == (ProxyMode.NFTABLES, "from-flag", "round-robin")
    assert found.debug
    assert [(remark.name, remark.reason) for remark in found.remarks] == [
        ("--proxy-mode", f"--config {path} counts instead")
    ]
    assert settings(path).node_name == "from-file"


def test_a_source_is_chosen_beside_a_file(write, tmp_path):
    path = write({"clientConnection": {"kubeconfig": "/k"}})
    assert settings(path).source_kind == "kubernetes"
    assert settings(path, "--source=etcd").source_kind == "etcd"
    assert settings(path, "--source=files", f"--manifests={tmp_path}").source_kind == "files"
    assert settings(write({}), f"--manifests={tmp_path}").source_kind == "files"
    assert settings(path, "--master=https://api:6443").source.master.text == "https://api:6443"


@pytest.mark.kube_proxy("6.1-46")
def test_a_written_configuration_says_the_same(tmp_path):
    path = tmp_path / "written.yaml"
    argv = ["--proxy-mode=nftables", "--cluster-cidr=10.244.0.0/16,fd00::/48", "--masquerade-all", "--healthz-port=80"]
    argv += ["--nodeport-addresses=primary", "--conntrack-tcp-timeout-established=1h30m", "--kubeconfig=/k"]
    before = read_settings(parse_flags(GROUPS, argv, {}, ""), PLACE)
    assert run([*argv, f"--write-config-to={path}"], {}) == 0
    after = settings(path)
    assert after.remarks == ()
    different = {name for name in before.__slots__ if getattr(before, name) != getattr(after, name)}
    assert different == {"source", "healthz", "metrics"}, "these tell where they were written"
    assert (after.source.kubeconfig.text, after.healthz.port) == ("/k", 80)
    assert yaml.safe_load(path.read_text())["conntrack"]["tcpCloseWaitTimeout"] == "1h0m0s"


@pytest.mark.kube_proxy("6.1-46")
async def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(write, caplog):
    path = write({"clusterCIDR": "10.0.0.0/16"})
    values = flags_of(path)
    first = read_settings(values, PLACE)
    async with aclosing(changed_settings(values, PLACE, first)) as changes, asyncio.timeout(PATIENCE_S):
        pending = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        write({"clusterCIDR": "nonsense"})
        while "changed configuration is not used" not in caplog.text:  # noqa: ASYNC110 - a log line wakes nobody
            await asyncio.sleep(0.01)
        assert not pending.done()
        write({"clusterCIDR": "10.1.0.0/16", "mode": "nftables"})
        now, waiting = apply_live(first, await pending)
    assert now.detection.cluster_cidrs == {Family.V4: ip_network("10.1.0.0/16")}
    assert (now.mode, waiting) == (ProxyMode.IPTABLES, ("mode",))


async def test_a_config_map_is_followed(tmp_path):
    """The kubelet swaps a symbolic link beside the file; the file itself is a link through it."""
    for number, cidr in (("1", "10.0.0.0/16"), ("2", "10.1.0.0/16")):
        (tmp_path / number).mkdir()
        (tmp_path / number / "config.conf").write_text(yaml.safe_dump({**HEAD, "clusterCIDR": cidr}))
    (tmp_path / "..data").symlink_to("1")
    path = tmp_path / "config.conf"
    path.symlink_to("..data/config.conf")
    values = flags_of(path)
    async with aclosing(changed_settings(values, PLACE, read_settings(values, PLACE))) as changes:
        pending = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        (tmp_path / "..new").symlink_to("2")
        (tmp_path / "..new").rename(tmp_path / "..data")
        async with asyncio.timeout(PATIENCE_S):
            found = await pending
    assert found.detection.cluster_cidrs == {Family.V4: ip_network("10.1.0.0/16")}


SECTIONS = ("iptables", "nftables", "conntrack", "detectLocal", "clientConnection", "logging", "ipvs", "featureGates")
FIELDS = (
    *("mode", "bindAddress", "clusterCIDR", "healthzBindAddress", "metricsBindAddress", "nodePortAddresses"),
    *("oomScoreAdj", "detectLocalMode", "hostnameOverride", "configSyncPeriod", "portRange", "unknown"),
)
INNER = (
    "masqueradeBit",
    "masqueradeAll",
    "syncPeriod",
    "minSyncPeriod",
    "min",
    "udpTimeout",
    "interfaceNamePrefix",
    "qps",
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(["1.2.3.4", "::1", "10.0.0.0/8", "primary", "nftables", "30s", "0s", "[::]:80", "0.0.0.0:1", "%"]),
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))
DOCUMENTS = st.dictionaries(st.sampled_from(FIELDS), VALUES) | st.dictionaries(
    st.sampled_from(SECTIONS), st.dictionaries(st.sampled_from(INNER), VALUES) | VALUES
)


@given(DOCUMENTS)
def test_whatever_a_file_says_is_understood_or_refused_in_one_line(document):
    values = parse_flags(GROUPS, [], {}, "")
    try:
        configured = read_configuration("--config f", {**HEAD, **document})
        found = settings_from(values, configured, PLACE)
    except OperatorError as error:
        refusal = str(error)
    else:
        refusal = "--config f: "
        assert all(remark.value.isprintable() for remark in found.remarks)
    assert refusal.startswith(("--config f: ", "--hostname-override "))
    assert refusal.isprintable()


@given(st.lists(st.tuples(st.sampled_from(sorted(PROXY_FIELDS)), st.text(max_size=20) | LEAVES.map(str)), max_size=4))
def test_whatever_flags_say_is_understood_or_refused_in_one_line(given_flags):
    argv = [f"--{name}={text}" for name, text in given_flags]
    refusal = ""
    try:
        values = parse_flags(GROUPS, argv, {}, "")
        settings_from(values, configured_by(values), PLACE)
    except OperatorError as error:
        refusal = str(error)
    assert not refusal or any(f"--{name}" in refusal for name, _ in given_flags)
