"""A new table in several transactions: nothing leads anywhere before the last one."""

from hypothesis import given
from hypothesis import strategies as st

from controlloop.delta import Delta
from controlloop.nft.state import Chain, Container, Hook, Key, labelled
from controlloop.nft.transaction import portions

CONTAINER = Container("map", "ipv4_addr : verdict", "type ipv4_addr : verdict")
BASE = Chain(Hook("nat", "output", -100), (labelled("look", "ip daddr vmap @services"),))


def table(services):
    put = {Key("container", "services"): CONTAINER, Key("chain", "output"): BASE}
    for number in range(services):
        put[Key("element", "services", f"10.0.0.{number}")] = "goto somewhere"
        put[Key("element", "endpoints", f"10.0.0.{number} . 0")] = "10.1.0.1 . 80"
    return put


@given(services=st.integers(0, 60), most=st.integers(1, 50))
def test_all_of_it_comes_once_and_what_leads_somewhere_comes_last(services, most):
    put = table(services)
    parts = list(portions(Delta(put=put), most))
    assert sum(len(part.put) for part in parts) == len(put)
    assert {key: value for part in parts for key, value in part.put.items()} == put
    for part in parts[:-1]:
        assert len(part.put) <= most
        assert not any(isinstance(value, Chain) or "goto" in str(value) for value in part.put.values())


@given(services=st.integers(1, 60), most=st.integers(1, 50), chance=st.randoms(use_true_random=False))
def test_a_container_comes_before_its_elements_in_whatever_order_they_are_given(services, most, chance):
    objects = [*table(services).items(), (Key("container", "endpoints"), CONTAINER)]
    chance.shuffle(objects)
    made = set()
    for part in portions(Delta(put=dict(objects)), most):
        made |= {key.name for key in part.put if key.kind == "container"}
        assert {key.name for key in part.put if key.kind == "element"} <= made


def test_a_small_change_and_one_that_takes_something_away_stay_whole():
    put = table(20)
    assert list(portions(Delta(put=put), 1000)) == [Delta(put=put)]
    change = Delta(put=put, drop={Key("chain", "old"): BASE})
    assert list(portions(change, 5)) == [change]
