import shlex
from contextlib import suppress
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlloop.errors import OperatorError
from controlloop.family import Family
from controlloop.goflags import variable_name
from netagent.__main__ import run
from netagent.config import read_flags, settings_from
from netagent.flags import GROUPS


def variable(name):
    return variable_name(name, "FLANNELD_")


def settings(line="", **environment):
    return settings_from(read_flags(shlex.split(line), environment), environment, "node-a")


def refusal(capsys, argv, environment=None):
    assert run(argv, environment or {}) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_the_defaults_are_flannels():
    found = settings()
    assert found.etcd.endpoints == ("http://127.0.0.1:4001", "http://127.0.0.1:2379")
    assert found.config_key == "/coreos.com/network/config"
    assert found.subnet_file == "/run/flannel/subnet.env"
    assert found.kubernetes is None
    assert (found.firewall.ip_masq, found.firewall.forward_rules, found.firewall.random_fully) == (False, True, True)
    assert (found.firewall.resync_s, found.renew_margin_s) == (5, 3600)
    assert (found.healthz_ip, found.healthz_port) == (ip_address("0.0.0.0"), 0)
    assert not found.interface.is_asked
    assert not found.debug


def test_the_line_of_an_existing_unit_is_understood():
    """As flanneld's documentation, kube-flannel's manifest and distributions write it."""
    found = settings(
        "-etcd-endpoints=https://10.0.0.1:2379,https://10.0.0.2:2379 --etcd-prefix /kube/network "
        "--etcd-cafile=/etc/ca.pem -etcd-certfile /etc/c.pem -etcd-keyfile /etc/k.pem -ip-masq "
        "--iface=eth1 -iface=10.0.0.9 -iface-regex='^10\\.0\\.' --ip-masq-fully-random-disable=T "
        "-iptables-forward-rules=false -subnet-lease-renew-margin=0x10 --healthz-port 8081 -v=4 -vmodule=x=1"
    )
    assert found.etcd.endpoints == ("https://10.0.0.1:2379", "https://10.0.0.2:2379")
    assert (found.etcd.ca_file, found.etcd.cert_file, found.etcd.key_file) == (
        "/etc/ca.pem",
        "/etc/c.pem",
        "/etc/k.pem",
    )
    assert found.interface.names == ("eth1", "10.0.0.9")
    assert found.interface.patterns[0].search("10.0.3.4")
    assert (found.firewall.ip_masq, found.firewall.forward_rules, found.firewall.random_fully) == (True, False, False)
    assert (found.renew_margin_s, found.healthz_port, found.debug) == (16 * 60, 8081, True)
    assert found.ignored == {"vmodule": "x=1"}


@pytest.mark.parametrize("argv", [["-ip-masq=false"], ["--ip-masq=0"], ["-ip-masq", "--ip-masq=F"]], ids=str)
def test_a_switch_is_switched_off_behind_an_equals_sign_and_the_last_one_counts(argv):
    assert not settings_from(read_flags(argv, {}), {}, "node-a").firewall.ip_masq


def test_a_value_may_hold_equals_signs_and_begin_with_a_dash():
    found = settings("--etcd-username a --etcd-password -b=c=d")
    assert found.etcd.password == "-b=c=d"  # noqa: S105
    assert "-b=c=d" not in repr(found)


def test_the_environment_stands_behind_the_command_line():
    environment = {"FLANNELD_IP_MASQ": "true", "FLANNELD_ETCD_PREFIX": "/env", "FLANNELD_IFACE": "eth3"}
    found = settings("--etcd-prefix=/flag", **environment)
    assert (found.firewall.ip_masq, found.etcd.prefix, found.interface.names) == (True, "/flag", ("eth3",))
    assert settings("--iface=eth1 --iface=eth2", **environment).interface.names == ("eth1", "eth2")


def test_an_empty_variable_counts_as_unset():
    assert settings(FLANNELD_IP_MASQ="", FLANNELD_SUBNET_FILE="").subnet_file == "/run/flannel/subnet.env"


def test_commands_are_given_by_flag_only():
    """A variable that an image sets for its own use must not make the daemon print and leave."""
    values = read_flags([], {"FLANNELD_VERSION": "v0.28.4", "FLANNELD_CLEANUP": "true", "FLANNELD_HELP": "true"})
    assert not any(values.is_on(name) for name in ("version", "cleanup", "help"))


def test_flags_of_the_kubernetes_subnet_manager():
    found = settings("--kube-subnet-mgr --kubeconfig-file=/etc/k --set-node-network-unavailable=false").kubernetes
    assert (found.kubeconfig_file, found.api_url, found.set_node_network_unavailable) == ("/etc/k", "", False)
    assert found.annotation_prefix == "flannel.alpha.coreos.com"
    assert found.net_config_path == "/etc/kube-flannel/net-conf.json"


def test_our_own_flags():
    found = settings(
        "--ip-masq-exclude=10.1.0.0/16,192.0.2.1 --ip-masq-exclude=fd00::/8 --service-cidr=10.96.0.0/12 "
        "--no-peer-filter --tx-checksum-off --no-probe --public-ip=198.51.100.1 --public-ipv6=2001:db8::1 "
        "--iface-can-reach=192.0.2.9 --node-name n7"
    )
    assert found.firewall.masq_exclude == tuple(map(ip_network, ("10.1.0.0/16", "192.0.2.1/32", "fd00::/8")))
    assert found.service_cidrs == (ip_network("10.96.0.0/12"),)
    assert (found.firewall.peer_filter, found.tx_checksum_off, found.probe) == (False, True, False)
    assert found.interface.public_ip[Family.V6] == ip_address("2001:db8::1")
    assert found.interface.can_reach == ip_address("192.0.2.9")
    assert found.node_name == "n7"


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--public-ip", "10.0.0"),
        ("--public-ip", "2001:db8::1"),
        ("--public-ip", "0.0.0.0"),
        ("--public-ip", "127.0.0.1"),
        ("--iface-regex", "a{99999999999}"),
        ("--public-ipv6", "10.0.0.1"),
        ("--iface-can-reach", "router"),
        ("--iface-regex", "eth("),
        ("--etcd-endpoints", ","),
        ("--etcd-certfile", "/c.pem"),
        ("--etcd-keyfile", "/k.pem"),
        ("--etcd-username", "root"),
        ("--subnet-file", "/run/"),
        ("--subnet-file", ""),
        ("--node-name", " "),
        ("--subnet-lease-renew-margin", "0"),
        ("--subnet-lease-renew-margin", "1440"),
        ("--iptables-resync", "0"),
        ("--iptables-resync", "5s"),
        ("--healthz-ip", "localhost"),
        ("--healthz-port", "65536"),
        ("--ip-masq-exclude", "10.0.0.0/33"),
        ("--service-cidr", "services"),
        ("--v", "info"),
    ],
)
def test_a_bad_value_is_one_line_with_flag_and_value(capsys, flag, value):
    error = refusal(capsys, [flag, value])
    assert error.startswith(f"netagent: {flag} ")
    assert value.strip() in error


@pytest.mark.parametrize(
    ("flags", "environment", "node", "pod"),
    [
        ("", {}, "node-a", ""),
        ("", {"POD_NAME": "x", "POD_NAMESPACE": "flannel"}, "node-a", "flannel/x"),
        ("", {"POD_NAME": "x"}, "node-a", ""),
        ("", {"POD_NAME": "x", "POD_NAMESPACE": "flannel", "NODE_NAME": "node-b"}, "node-b", ""),
        ("--node-name node-c", {"POD_NAME": "x", "POD_NAMESPACE": "flannel", "NODE_NAME": "b"}, "node-c", ""),
    ],
)
def test_who_names_the_node_in_kubernetes(flags, environment, node, pod):
    found = settings(f"--kube-subnet-mgr {flags}", **environment)
    assert (found.node_name, found.kubernetes.own_pod) == (node, pod)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--nope"], "--nope: no such flag (--help lists all)"),
        (["---iface", "x"], 'argument "---iface": not a flag (a switch takes its value as --flag=false)'),
        (["-ip-masq", "false"], 'argument "false": not a flag (a switch takes its value as --flag=false)'),
        (["-ip-masq=yes"], "--ip-masq yes: want true or false"),
        (["--iface"], "--iface: needs a value"),
    ],
)
def test_bad_usage_is_one_line(capsys, argv, line):
    assert refusal(capsys, argv) == f"netagent: {line}\n"


@pytest.mark.parametrize(
    ("variable", "value"), [("FLANNELD_IP_MASQ", "yes"), ("FLANNELD_HEALTHZ_PORT", "x"), ("FLANNELD_IFACE_REGEX", "(")]
)
def test_a_bad_variable_is_one_line_with_its_name_and_value(capsys, variable, value):
    assert refusal(capsys, [], {variable: value}).startswith(f"netagent: {variable} {value}: ")


NAMES = [flag.name for _, flags in GROUPS for flag in flags]
WORDS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(NAMES).map("-{}".format),
    st.tuples(st.sampled_from(NAMES), st.text(max_size=20)).map("--{0[0]}={0[1]}".format),
)


@given(st.lists(WORDS, max_size=4), st.dictionaries(st.sampled_from(NAMES).map(variable), st.text(), max_size=3))
def test_whatever_is_given_is_understood_or_refused(argv, environment):
    with suppress(OperatorError):
        settings_from(read_flags(argv, environment), environment, "node-a")


def test_the_help_has_one_line_for_each_flag(capsys):
    assert run(["-h"], {}) == 0
    lines = capsys.readouterr().out.splitlines()
    for flag in (flag for _, flags in GROUPS for flag in flags if flag.help):
        assert sum(line.startswith(f"  --{flag.name} ") for line in lines) == 1
    assert max(map(len, lines)) <= 120
