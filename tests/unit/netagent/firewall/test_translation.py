"""Who is masqueraded, and that both ways to write it say the same."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netagent.firewall import iptables, nftables
from netagent.firewall.translation import Pods, translations

V4 = Pods(ip_network("10.244.0.0/16"), ip_network("10.244.1.0/24"))
V6 = Pods(ip_network("fd00:244::/48"), ip_network("fd00:244:0:1::/64"))
EXCLUDED = [ip_network("172.16.0.0/12"), ip_network("2001:db8:e::/48")]


def contains(match, address):
    return (ip_address(address) in match.addresses) is match.inside


def verdict(pods, source, destination, excluded=()):
    for rule in translations(pods, excluded):
        if contains(rule.source, source) and contains(rule.destination, destination):
            return "masqueraded" if rule.masquerade else "kept"
    return "kept"


FLOWS = [
    ("10.244.1.5", "10.244.1.6", "kept"),
    ("10.244.1.5", "10.244.2.6", "kept"),
    ("10.244.2.6", "10.244.1.5", "kept"),
    ("192.0.2.1", "10.244.1.5", "kept"),
    ("10.244.1.5", "192.0.2.1", "masqueraded"),
    ("10.244.1.5", "224.0.0.251", "kept"),
    ("10.244.1.5", "239.1.2.3", "kept"),
    ("10.244.1.5", "172.16.9.9", "kept"),
    ("192.0.2.1", "10.244.2.6", "masqueraded"),
    ("172.16.9.9", "10.244.2.6", "masqueraded"),
    ("192.0.2.1", "198.51.100.1", "kept"),
    ("192.0.2.1", "224.0.0.251", "kept"),
    ("fd00:244:0:1::5", "fd00:244:0:2::6", "kept"),
    ("2001:db8::1", "fd00:244:0:1::5", "kept"),
    ("fd00:244:0:1::5", "2001:db8::1", "masqueraded"),
    ("fd00:244:0:1::5", "ff02::fb", "kept"),
    ("fd00:244:0:1::5", "2001:db8:e::1", "kept"),
    ("2001:db8::1", "fd00:244:0:2::6", "masqueraded"),
]


@pytest.mark.flannel("A10")
@pytest.mark.parametrize(("source", "destination", "wanted"), FLOWS)
def test_a_flow_is_masqueraded_or_keeps_its_source(source, destination, wanted):
    pods = V4 if ip_address(source).version == 4 else V6
    assert verdict(pods, source, destination, EXCLUDED) == wanted


@given(st.ip_addresses(v=4, network="10.244.0.0/15"), st.ip_addresses(v=4, network="10.244.0.0/15"))
def test_an_exclusion_changes_only_what_pods_send_there(source, destination):
    excluded = [ip_network("10.245.0.0/17")]
    before, after = verdict(V4, source, destination), verdict(V4, source, destination, excluded)
    if source in V4.network and destination in excluded[0]:
        assert after == "kept"
    else:
        assert after == before


NFTABLES = """\
ip saddr 10.244.1.0/24 ip daddr 10.244.0.0/16 return
ip saddr 10.244.0.0/16 ip daddr 10.244.1.0/24 return
ip saddr != 10.244.0.0/16 ip daddr 10.244.1.0/24 return
ip saddr 10.244.0.0/16 ip daddr 172.16.0.0/12 return
ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/16 masquerade fully-random"""

IPTABLES = """\
-s 10.244.1.0/24 -d 10.244.0.0/16 -j RETURN
-s 10.244.0.0/16 -d 10.244.1.0/24 -j RETURN
! -s 10.244.0.0/16 -d 10.244.1.0/24 -j RETURN
-s 10.244.0.0/16 -d 172.16.0.0/12 -j RETURN
-s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
! -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE --random-fully"""


@pytest.mark.flannel("22", "23")
def test_the_rules_in_nftables():
    _, chain = nftables.postrouting(V4, translations(V4, EXCLUDED), fully_random=True)
    assert chain.rules[0].text == "meta mark & 0x4000 == 0x4000 return"
    assert "\n".join(rule.text for rule in chain.rules[1:]) == NFTABLES


@pytest.mark.flannel("16", "22", "23")
def test_the_rules_in_iptables():
    chains = iptables.masquerade_chains(translations(V4, EXCLUDED), "NETAGENT-", random_fully=True)
    first, *others = chains["nat", "NETAGENT-POSTROUTING"]
    assert first == "-m mark --mark 0x4000/0x4000 -j RETURN"
    assert "\n".join(others) == IPTABLES
    assert chains["nat", "POSTROUTING"] == ("-j NETAGENT-POSTROUTING",)


def test_ports_are_kept_where_random_ones_are_not_supported_or_not_wanted():
    rules = translations(V4, [])
    _, chain = nftables.postrouting(V4, rules, fully_random=False)
    assert chain.rules[-1].text.endswith(" masquerade")
    chains = iptables.masquerade_chains(rules, "NETAGENT-", random_fully=False)
    assert chains["nat", "NETAGENT-POSTROUTING"][-1].endswith(" -j MASQUERADE")


def test_a_network_of_all_addresses_has_no_outside():
    """Neither nft nor iptables-nft can say `not 0.0.0.0/0`."""
    pods = Pods(ip_network("0.0.0.0/0"), ip_network("10.244.1.0/24"))
    chains = iptables.masquerade_chains(translations(pods, []), "NETAGENT-", random_fully=False)
    assert chains["nat", "NETAGENT-POSTROUTING"][1:] == (
        "-s 10.244.1.0/24 -j RETURN",
        "-d 10.244.1.0/24 -j RETURN",
        "! -d 224.0.0.0/4 -j MASQUERADE",
    )
