"""What netproxy's flags mean, and what it says of those it cannot use."""

from ipaddress import ip_address, ip_network

import pytest

from controlloop.errors import OperatorError
from controlloop.etcd_settings import EtcdSettings
from controlloop.family import Family
from controlloop.goflags import parse_flags, render_help
from proxy.__main__ import run
from proxy.command_line import Place, configured_by, settings_from
from proxy.config import (
    ConntrackSettings,
    Detection,
    DetectLocal,
    FilesSettings,
    KubernetesSettings,
    Listener,
    NodePortAddresses,
    ProxyMode,
    Settings,
    apply_live,
)
from proxy.flags import FIELDS, GROUPS, SHOWN, USAGE
from proxy.frontends import Balance


def settings(*argv, in_pod=False, host_name="Host-1"):
    values = parse_flags(GROUPS, argv, {}, "NETPROXY_")
    return settings_from(values, configured_by(values), Place(host_name, in_pod))


def refusal(*argv, **place):
    with pytest.raises(OperatorError) as caught:
        settings(*argv, **place)
    return str(caught.value)


def test_without_flags_it_is_kube_proxys_defaults():
    assert settings() == Settings(
        node_name="host-1",
        source=EtcdSettings(("http://127.0.0.1:2379",), "/nodenet"),
        mode=ProxyMode.IPTABLES,
        balance=Balance.RANDOM,
        detection=Detection(),
        node_port_addresses=NodePortAddresses(),
        localhost_node_ports=True,
        masquerade_all=False,
        masquerade_bit=14,
        sync_period_s=30.0,
        conntrack=ConntrackSettings(32_768, 131_072, 86_400.0, 3_600.0, tcp_be_liberal=False),
        healthz=Listener(ip_address("0.0.0.0"), 10_256, "--healthz-bind-address"),
        metrics=Listener(ip_address("127.0.0.1"), 10_249, "--metrics-bind-address"),
        oom_score_adj=-999,
    )


@pytest.mark.parametrize(
    ("argv", "in_pod", "kind"),
    [
        ([], False, EtcdSettings),
        (["--etcd-endpoints", "http://e:1"], True, EtcdSettings),
        (["--source", "etcd"], True, EtcdSettings),
        ([], True, KubernetesSettings),
        (["--kubeconfig", "/k"], False, KubernetesSettings),
        (["--master", "https://a"], False, KubernetesSettings),
        (["--source", "kubernetes"], True, KubernetesSettings),
        (["--manifests", "/m"], True, FilesSettings),
        (["--source", "files", "--manifests", "/m", "--kubeconfig", "/k"], False, FilesSettings),
    ],
)
def test_where_services_come_from(argv, in_pod, kind):
    assert isinstance(settings(*argv, in_pod=in_pod).source, kind)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--source", "files"], "--source files: needs --manifests DIR"),
        (["--source", "etcd", "--manifests", "/x"], "--manifests /x: not read with --source etcd"),
        (
            ["--source", "kubernetes"],
            "--source kubernetes: needs --kubeconfig or --master; this is no pod of a cluster",
        ),
        (["--manifests", "/x", "--kubeconfig", "/k"], "--manifests /x: --kubeconfig is there too; say --source"),
        (["--source", "consul"], "--source consul: want kubernetes, etcd or files"),
        (["--etcd-certfile", "c"], "--etcd-certfile c: needs --etcd-keyfile as well"),
        (["--etcd-endpoints", ","], "--etcd-endpoints ,: name at least one"),
    ],
)
def test_sources_that_contradict_each_other_are_named(argv, words):
    assert refusal(*argv) == words


@pytest.mark.kube_proxy("6.1-46")
@pytest.mark.parametrize(
    ("flag", "value", "reason"),
    [
        ("proxy-mode", "ipvs", "not supported; use nftables, or else iptables"),
        ("proxy-mode", "kernelspace", "want iptables or nftables"),
        ("iptables-masquerade-bit", "32", "want a whole number from 0 to 31"),
        ("iptables-masquerade-bit", "x", "expected `int`, got `str`"),
        ("oom-score-adj", "1001", "want a whole number from -1000 to 1000"),
        ("bind-address", "here", "not an IP address"),
        ("bind-address", "fe80::1%eth0", "not an IP address"),
        ("cluster-cidr", "10.244.0.0/33", "not a network in CIDR form"),
        ("cluster-cidr", "10.244.0.0", "not a network in CIDR form"),
        ("cluster-cidr", "10.0.0.0/16,10.1.0.0/16", "two IPv4 networks"),
        ("nodeport-addresses", "10.0.0.1", "not a network in CIDR form"),
        ("detect-local-mode", "Guess", "want ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix"),
        ("iptables-sync-period", "30", "want a length of time such as 30s or 1h30m"),
        ("iptables-sync-period", "-1s", "must be above 0"),
        ("iptables-min-sync-period", "31s", "longer than syncPeriod 30s"),
        ("conntrack-min", "-1", "want a whole number from 0 to 2147483647"),
        ("conntrack-udp-timeout", "-1s", "must not be below 0"),
        ("healthz-bind-address", "0.0.0.0:99999", "want IP:PORT"),
        ("metrics-bind-address", "localhost:1", "not an IP address"),
        ("balance", "fair", "want random, round-robin, weighted, source-hash, consistent"),
        ("drain-timeout", "soon", "want a length of time such as 30s or 5m"),
        ("external-ip-ranges", "192.0.2.1/24", "not a network in CIDR form"),
    ],
)
def test_a_value_that_makes_no_sense_is_named_with_its_flag(flag, value, reason):
    shown = value.split(",")[0] if flag == "external-ip-ranges" else value
    assert refusal(f"--{flag}={value}") == f"--{flag} {shown}: {reason}"


def test_primary_stands_alone():
    assert refusal("--nodeport-addresses", "primary,10.0.0.0/8") == (
        "--nodeport-addresses primary: primary stands alone"
    )


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("", {}),
        ("10.244.0.0/16", {Family.V4: "10.244.0.0/16"}),
        ("10.244.7.1/16, fd00::/48", {Family.V4: "10.244.0.0/16", Family.V6: "fd00::/48"}),
    ],
)
def test_the_pod_network_is_known_by_family(text, networks):
    known = settings(f"--cluster-cidr={text}").detection.cluster_cidrs
    assert known == {family: ip_network(network) for family, network in networks.items()}


def test_interfaces_of_pods_are_names_that_a_rule_can_hold():
    assert settings("--detect-local-mode=BridgeInterface", "--pod-bridge-interface=cni0").detection == Detection(
        DetectLocal.BRIDGE_INTERFACE, {}, "cni0"
    )
    for name in ("", "a;b", "../x", "a" * 16, "x y", 'v"'):
        words = refusal("--detect-local-mode=InterfaceNamePrefix", f"--pod-interface-name-prefix={name}")
        assert words.startswith("--pod-interface-name-prefix ")
        assert words.endswith(": detectLocalMode InterfaceNamePrefix needs the name of an interface")


@pytest.mark.parametrize(
    ("argv", "healthz"),
    [
        (["--healthz-port=0"], None),
        (["--healthz-bind-address="], None),
        (["--healthz-port=1024"], ("0.0.0.0", 1024)),
        (["--healthz-bind-address=10.0.0.1", "--healthz-port=1024"], ("10.0.0.1", 1024)),
        (["--healthz-bind-address=10.0.0.1:80", "--healthz-port=1024"], ("10.0.0.1", 80)),
        (["--healthz-bind-address=fd00::1"], ("fd00::1", 10_256)),
        (["--healthz-bind-address=[fd00::1]:80"], ("fd00::1", 80)),
        (["--bind-address=fd00::1"], ("::", 10_256)),
    ],
)
def test_where_health_is_told(argv, healthz):
    found = settings(*argv).healthz
    assert (found and (str(found.address), found.port)) == healthz


def test_a_flag_of_both_modes_counts_in_both():
    for mode in ("iptables", "nftables"):
        found = settings("--masquerade-all", "--iptables-sync-period=10s", "--proxy-mode", mode)
        assert (found.masquerade_all, found.sync_period_s) == (True, 10.0)
    assert not settings("--masquerade-all=false").masquerade_all
    bits = [
        settings("--iptables-masquerade-bit=3", f"--proxy-mode={mode}").masquerade_bit
        for mode in ("iptables", "nftables")
    ]
    assert bits == [3, 14], "kube-proxy has no flag for the bit of nftables mode"


def test_lists_may_be_given_in_one_or_several():
    networks = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    for argv in (["10.0.0.0/8,fd00::/8"], ["10.0.0.0/8", "fd00::/8"]):
        given = [word for text in argv for word in ("--nodeport-addresses", text)]
        assert settings(*given).node_port_addresses == NodePortAddresses(networks=networks)
    assert settings("--nodeport-addresses=primary").node_port_addresses == NodePortAddresses(primary=True)


def test_names_of_nodes_are_in_lower_case():
    assert settings("--hostname-override", " Node-7 ").node_name == "node-7"
    assert refusal("--hostname-override", " ") == '--hostname-override " ": a node needs a name'


def test_flags_without_effect_are_accepted_and_named():
    found = settings("--kube-api-qps=50", "--feature-gates=A=true", "--ipvs-strict-arp", "--profiling")
    assert [(remark.name, remark.value) for remark in found.remarks] == [
        ("--feature-gates", "A=true"),
        ("--ipvs-strict-arp", "true"),
        ("--kube-api-qps", "50"),
        ("--profiling", "true"),
    ]


@pytest.mark.parametrize(("mode", "remarked"), [("iptables", ["--service-counters"]), ("nftables", [])])
def test_services_are_counted_in_nftables_mode(mode, remarked):
    assert not settings(f"--proxy-mode={mode}").service_counters
    found = settings("--service-counters", f"--proxy-mode={mode}")
    assert found.service_counters
    assert [remark.name for remark in found.remarks] == remarked


def test_what_may_change_while_it_runs_is_applied_and_the_rest_waits():
    before = settings("--cluster-cidr=10.0.0.0/16", "--proxy-mode=iptables")
    after = settings("--cluster-cidr=10.1.0.0/16", "--proxy-mode=nftables", "--oom-score-adj=0", "--masquerade-all")
    now, waiting = apply_live(before, after)
    assert (now.detection, now.masquerade_all) == (after.detection, True)
    assert (now.mode, now.oom_score_adj) == (before.mode, before.oom_score_adj)
    assert waiting == ("mode", "oom_score_adj")


def test_every_flag_of_a_field_exists_and_help_shows_it():
    flags = {flag.name: flag for _, members in SHOWN for flag in members}
    assert flags.keys() >= FIELDS.keys()
    text = render_help(USAGE, SHOWN)
    assert all(f"--{name} " in text for name in FIELDS)
    assert all(len(line) <= 120 for line in text.splitlines())


def test_passwords_are_taken_from_the_environment_and_never_shown():
    values = parse_flags(GROUPS, ["--etcd-username=u"], {"NETPROXY_ETCD_PASSWORD": "secret"}, "NETPROXY_")
    found = settings_from(values, configured_by(values), Place("n", in_pod=False))
    assert found.source.password == "secret"  # noqa: S105
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["--version"], 0, ""),
        (["--nosuch"], 2, "netproxy: --nosuch: no such flag (--help lists all)\n"),
        (["--proxy-mode=ipvs"], 2, "netproxy: --proxy-mode ipvs: not supported; use nftables, or else iptables\n"),
        (["--config=/nosuch"], 2, "netproxy: --config /nosuch: No such file or directory\n"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(capsys, argv, code, said):
    assert run(argv, {}) == code
    assert capsys.readouterr().err == said
