"""How a large change is cut for iptables-nft-restore."""

from controlloop.delta import Delta
from proxy.iptables.portions import portions

RULES = ("-j DNAT",) * 5
SERVICES = {("nat", f"NETPROXY-SVC-{number:03}"): RULES for number in range(20)}
EXTERNAL = {("nat", f"NETPROXY-EXT-{number:03}"): (f"-j NETPROXY-SVC-{number:03}",) for number in range(20)}
ROOT = {("nat", "NETPROXY-SERVICES"): ("-j NETPROXY-EXT-000",), ("nat", "PREROUTING"): ("-j NETPROXY-SERVICES",)}
EVERYTHING = {**ROOT, **EXTERNAL, **SERVICES}


def test_chains_of_services_come_before_what_leads_to_them():
    *parts, last = portions(Delta(put=EVERYTHING), most=30)
    assert len(parts) == 4
    assert last.put == ROOT
    order = [key for part in parts for key in part.put]
    assert order == sorted(order, reverse=True)
    assert {key: rules for part in (*parts, last) for key, rules in part.put.items()} == EVERYTHING


def test_no_part_is_much_larger_than_allowed():
    *parts, _ = portions(Delta(put=EVERYTHING), most=30)
    assert all(sum(map(len, part.put.values())) < 30 + len(RULES) for part in parts)


def test_a_change_of_what_is_there_is_one_transaction():
    change = Delta(put=EVERYTHING, drop=ROOT)
    assert list(portions(change, most=30)) == [change]


def test_little_is_one_transaction():
    change = Delta(put=EVERYTHING)
    assert list(portions(change)) == [change]
