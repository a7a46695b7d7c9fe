"""Checksum offload on the kernel's own devices."""

import subprocess

import pytest
from namespace import fresh_namespace

from netagent.offload import ChecksumsOff, tx_checksum, tx_checksum_off

DEVICES = {
    "veth": ["ip", "link", "add", "dev0", "type", "veth", "peer", "name", "dev1"],
    "vxlan": ["ip", "link", "add", "dev0", "type", "vxlan", "id", "1", "dstport", "8472", "local", "127.0.0.1"],
}


@pytest.fixture(autouse=True)
def _namespace():
    with fresh_namespace():
        yield


@pytest.mark.parametrize("kind", DEVICES)
def test_it_goes_off_once_and_stays_off(kind):
    subprocess.run(DEVICES[kind], check=True)
    assert tx_checksum("dev0")
    assert tx_checksum_off("dev0")
    assert not tx_checksum("dev0")
    assert not tx_checksum_off("dev0")


def test_a_device_that_is_made_anew_is_set_anew_and_a_missing_one_is_told_once(caplog):
    off = ChecksumsOff(["dev0"])
    off.settle()
    off.settle()
    assert len(caplog.records) == 1
    for _ in range(2):
        subprocess.run(DEVICES["veth"], check=True)
        off.settle()
        assert not tx_checksum("dev0")
        subprocess.run(["ip", "link", "del", "dev0"], check=True)
