"""Facts that stand in files, read from a folder in place of the host's root."""

from pathlib import Path

import pytest

from netctl.findings.facts import Reader, read_networkd, read_sysctls
from netctl.findings.host_facts import HostFacts
from netctl.findings.judge_host import networkd
from netctl.node import LiveNode

NETWORKD = "systemd/networkd.conf.d"


def write(root, **files):
    """Text by path, with two underscores for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def running(tmp_path):
    write(tmp_path, run__systemd__netif__state="OPER_STATE=routable\n")
    return tmp_path


def settings(root):
    return read_networkd(Reader(LiveNode(root=root)))


def drop_in(root, place, name, text):
    path = root / place / NETWORKD / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[Network]\n{text}\n")


def test_networkd_counts_only_while_it_runs(tmp_path):
    drop_in(tmp_path, "etc", "a.conf", "ManageForeignRoutes=no")
    assert settings(tmp_path) is None


def test_a_drop_in_outweighs_the_main_file_and_a_later_one_an_earlier(running):
    (running / "etc/systemd").mkdir(parents=True)
    (running / "etc/systemd/networkd.conf").write_text("[Network]\nManageForeignRoutes=yes\nSpeedMeter=no\n")
    drop_in(running, "usr/lib", "20-b.conf", "ManageForeignRoutes=no")
    drop_in(running, "etc", "10-a.conf", "ManageForeignRoutes=yes")
    assert settings(running) == {"ManageForeignRoutes": "no", "SpeedMeter": "no"}


def test_of_files_with_one_name_that_of_the_administrator_counts(running):
    drop_in(running, "usr/lib", "nodenet.conf", "ManageForeignRoutes=no")
    drop_in(running, "etc", "nodenet.conf", "ManageForeignRoutes=yes")
    assert settings(running) == {"ManageForeignRoutes": "yes"}


def test_what_we_install_is_what_is_wanted(running):
    assert [each.code for each in networkd(HostFacts(networkd=settings(running)))] == ["NN308", "NN308"]
    ours = Path(__file__).parents[3] / "systemd/networkd.conf.d/nodenet.conf"
    drop_in(running, "usr/lib", "nodenet.conf", ours.read_text())
    assert list(networkd(HostFacts(networkd=settings(running)))) == []


def test_a_sysctl_that_says_nothing_is_absent(tmp_path):
    folder = tmp_path / "proc/sys/net"
    write(folder, ipv4__ip_forward="1\n", ipv4__conf__all__rp_filter="\n", ipv4__conf__eth0__rp_filter="2\n")
    assert read_sysctls(LiveNode(root=tmp_path)) == {"ipv4/ip_forward": 1, "ipv4/conf/eth0/rp_filter": 2}
