from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlloop.family import Family
from netagent.subnet_file import parse_subnets, read_subnets, render, write

NETWORKS = {Family.V4: ip_network("10.5.0.0/16"), Family.V6: ip_network("fc00:5::/48")}
SUBNETS = {Family.V4: ip_network("10.5.72.0/24"), Family.V6: ip_network("fc00:5:0:7::/64")}


def test_the_file_has_flannels_names_in_its_order():
    assert render(NETWORKS, {Family.V4: SUBNETS[Family.V4]}, 1450) == (
        "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.72.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
    )


def test_the_bridge_is_told_who_masquerades():
    assert render(NETWORKS, SUBNETS, 1450, ip_masq=True).endswith("FLANNEL_IPMASQ=true\n")


@pytest.mark.parametrize("families", [[Family.V4], [Family.V6], [Family.V4, Family.V6]], ids=str)
def test_what_is_written_is_what_is_found_after_a_restart(tmp_path, families):
    subnets = {family: SUBNETS[family] for family in families}
    path = tmp_path / "flannel" / "subnet.env"
    write(path, render(NETWORKS, subnets, 1450))
    assert read_subnets(path) == subnets


@pytest.mark.flannel("17")
@pytest.mark.parametrize(
    "text",
    ["", "FLANNEL_SUBNET=", "FLANNEL_SUBNET=10.5.1.1/24,10.5.2.1/24", "FLANNEL_SUBNET=fc00::1/64", "nonsense\0="],
)
def test_an_unreadable_subnet_is_as_good_as_none(text):
    assert parse_subnets(text) == {}


@pytest.mark.flannel("28")
@given(st.text(max_size=60) | st.text(max_size=40).map("FLANNEL_IPV6_SUBNET={}".format))
def test_any_text_names_subnets_or_none(text):
    assert parse_subnets(text).keys() <= set(Family)


def test_quotes_and_blanks_of_other_writers_are_read():
    assert parse_subnets(' FLANNEL_SUBNET = "10.5.72.1/24" ') == {Family.V4: SUBNETS[Family.V4]}


def test_everybody_may_read_the_file_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "flannel" / "subnet.env"
    for text in ("one\n", "two\n"):
        write(path, text)
    assert path.read_text() == "two\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.parent.stat().st_mode & 0o777 == 0o755
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_no_fragment(tmp_path):
    (tmp_path / "subnet.env").mkdir()
    with pytest.raises(OSError, match="directory"):
        write(tmp_path / "subnet.env", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["subnet.env"]


def test_a_missing_file_names_no_subnet(tmp_path):
    assert read_subnets(tmp_path / "subnet.env") is None
