"""What the host has no program for is refused, and nothing is taken in its place."""

import pytest

from controlloop import command
from controlloop.errors import OperatorError
from controlloop.etcd_settings import EtcdSettings
from proxy.config import ProxyMode, Settings
from proxy.daemon import check_programs

ETCD = EtcdSettings(("http://127.0.0.1:2379",), "/nodenet")


def install(program, folder):
    (folder / program).write_text("")
    (folder / program).chmod(0o755)


@pytest.fixture
def host(monkeypatch, tmp_path):
    """The folder of its programs."""
    monkeypatch.setattr(command, "SEARCH_PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("mode", "program"), [(ProxyMode.NFTABLES, "nft"), (ProxyMode.IPTABLES, "iptables")])
def test_the_flag_and_the_missing_program_are_named(mode, program, host):
    settings = Settings("node-1", ETCD, mode=mode)
    with pytest.raises(OperatorError, match=f"--proxy-mode {mode.value}: {program} is not installed"):
        check_programs(settings)
    install(program, host)
    check_programs(settings)


def test_counters_need_nft_in_every_mode(host):
    install("iptables", host)
    with pytest.raises(OperatorError, match="--service-counters: nft is not installed"):
        check_programs(Settings("node-1", ETCD, mode=ProxyMode.IPTABLES, service_counters=True))
