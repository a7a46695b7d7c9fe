import pytest

from controlloop.flags import run_command
from netagent.__main__ import netagent, settings_from
from netagent.config import ETCD_ENDPOINTS, ETCD_PREFIX, SUBNET_FILE

DEFAULTS = {
    "etcd_endpoints": ETCD_ENDPOINTS,
    "etcd_prefix": ETCD_PREFIX,
    "iface": "",
    "public_ip": "",
    "subnet_file": SUBNET_FILE,
}


def test_the_defaults_are_flannels():
    settings = settings_from("node-a", DEFAULTS)
    assert settings.etcd_endpoints == ("http://127.0.0.1:4001", "http://127.0.0.1:2379")
    assert settings.config_key == "/coreos.com/network/config"
    assert settings.subnet_file == "/run/flannel/subnet.env"


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--public-ip", "10.0.0"),
        ("--public-ip", "2001:db8::1"),
        ("--public-ip", "0.0.0.0"),
        ("--etcd-endpoints", ","),
        ("--subnet-file", "/run/"),
        ("--node-name", " "),
    ],
)
def test_a_bad_flag_is_one_line_with_flag_and_value_and_exit_code_2(capsys, flag, value):
    assert run_command(netagent, [flag, value]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"netagent: {flag}")
    assert value.strip() in error
    assert error.count("\n") == 1


def test_an_unknown_flag_is_one_line_too(capsys):
    assert run_command(netagent, ["--nope"]) == 2
    assert capsys.readouterr().err == "netagent: No such option '--nope'.\n"
