"""Probes as bytes, and whatever else may come to their port; what the kernel counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netagent.probing.counters import checksum_errors, parse
from netagent.probing.wire import LAYOUT, Kind, Probe, render
from netagent.probing.wire import parse as parse_probe

probes = st.builds(Probe, st.sampled_from(Kind), st.integers(0, 2**64 - 1), st.integers(LAYOUT.size, 9000))


@given(probes)
def test_a_probe_reads_back_with_its_size(probe):
    assert len(render(probe)) == probe.size
    assert parse_probe(render(probe)) == probe
    assert parse_probe(render(probe.answer())) == Probe(Kind.ANSWER, probe.nonce, probe.size)


@pytest.mark.flannel("28")
@given(st.binary(max_size=64))
def test_anything_else_is_no_probe(datagram):
    assert parse_probe(datagram) is None or datagram.startswith(b"nnp1")


def test_an_unknown_kind_is_no_probe():
    assert parse_probe(LAYOUT.pack(b"nnp1", 3, 1)) is None


def test_the_kernel_counts_both_families(tmp_path):
    (tmp_path / "snmp").write_text(
        "Ip: A B\nIp: 1 2\nUdp: InDatagrams InCsumErrors Other\nUdp: 5 7 9\nUdpLite: X\nUdpLite: 1\n"
    )
    (tmp_path / "snmp6").write_text("Udp6InDatagrams \t4\nUdp6InCsumErrors                \t3\n")
    assert checksum_errors(tmp_path) == 10
    (tmp_path / "snmp6").unlink()
    assert checksum_errors(tmp_path) == 7
    assert parse(["Udp: InDatagrams", "Udp: 5"]) == 0
