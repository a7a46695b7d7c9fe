import random

from hypothesis import given
from hypothesis import strategies as st
from iptables_ruleset import Ruleset

from controlloop.delta import Delta, diff
from controlloop.iptables.chains import Owned
from controlloop.iptables.listing import parse
from controlloop.iptables.transaction import render, render_part

OURS = Owned(("NETPROXY-",))

# Chains in layers, each of which may jump to the next; the last entry of a layer's rule names no chain.
LAYERS = (
    ("NETPROXY-SERVICES", "NETPROXY-REJECT"),
    ("NETPROXY-10.96.0.0/20", "NETPROXY-9"),
    ("NETPROXY-SVC-A", "NETPROXY-SVC-B"),
)
FOREIGN = '-m comment --comment "see -j NETPROXY-SERVICES" -j ACCEPT'


@st.composite
def states(draw):
    """What could be in the kernel: a subset of the chains, and jumps only to chains that exist."""
    state = {}
    for table, hook in (("nat", "OUTPUT"), ("filter", "INPUT")):
        below = []
        for layer in reversed(LAYERS):
            here = draw(st.lists(st.sampled_from(layer), unique=True))
            rules = [f"-d 10.96.{number}.0/24 -j {name}" for number, name in enumerate(["RETURN", *below])]
            state |= {(table, name): tuple(draw(st.lists(st.sampled_from(rules), max_size=3))) for name in here}
            below += here
        if below and draw(st.booleans()):
            state[table, hook] = tuple(
                draw(st.lists(st.sampled_from([f"-j {name}" for name in below]), min_size=1, max_size=2))
            )
    return state


def loaded(state):
    ruleset = Ruleset()
    ruleset.append("nat", "OUTPUT", FOREIGN)
    ruleset.append("filter", "INPUT", FOREIGN)
    ruleset.restore(render(Delta(put=state), OURS))
    return ruleset


@given(states())
def test_what_is_rendered_and_printed_is_parsed_back(state):
    assert parse(loaded(state).save(), OURS) == state


@given(states(), states())
def test_the_difference_leads_from_any_state_to_any_other(actual, desired):
    """The stand-in refuses a jump to an unknown chain and the deletion of one in use, as the kernel does."""
    ruleset = loaded(actual)
    ruleset.restore(render(diff(desired, actual), OURS))
    assert parse(ruleset.save(), OURS) == desired
    assert FOREIGN in ruleset.chains["nat", "OUTPUT"]


@given(states(), states())
def test_a_transaction_that_is_under_way_is_gone_on_with_and_others_follow(ahead, desired):
    """Chains to which nothing leads went ahead, some of them not as they are to be in the end."""
    ahead = {key: ("-j RETURN",) for key in ahead if key[0] == "nat" and OURS.is_ours(key[1])}
    ruleset = loaded({})
    part = render_part("nat", Delta(put=ahead), OURS)
    ruleset.restore(f"*nat\n{part}{render(diff(desired, ahead), OURS, 'nat')}")
    assert parse(ruleset.save(), OURS) == desired
    assert FOREIGN in ruleset.chains["nat", "OUTPUT"]
    assert FOREIGN in ruleset.chains["filter", "INPUT"]


def test_nothing_to_change_is_no_input():
    assert render(Delta(), OURS) == ""


def test_a_table_without_changes_is_not_opened():
    assert "*filter" not in render(Delta(put={("nat", "NETPROXY-SERVICES"): ()}), OURS)


def test_jumps_go_to_the_head_of_a_foreign_chain():
    text = render(Delta(put={("nat", "OUTPUT"): ("-j NETPROXY-A", "-j NETPROXY-B")}), OURS)
    assert text == "*nat\n-I OUTPUT -j NETPROXY-B\n-I OUTPUT -j NETPROXY-A\nCOMMIT\n"


def test_the_same_change_prints_the_same_text():
    rules = {("nat", f"NETPROXY-SVC-{number}"): ("-j RETURN",) for number in range(20)}
    shuffled = dict(random.sample(list(rules.items()), len(rules)))
    assert render(Delta(put=rules), OURS) == render(Delta(put=shuffled), OURS)


def test_chains_come_by_descending_name():
    """iptables-nft-restore then finds each name at the head of its list."""
    rules = {("nat", f"NETPROXY-SVC-{number}"): () for number in range(3)}
    assert render(Delta(put=rules), OURS).split() == [
        "*nat",
        *(word for number in (2, 1, 0) for word in (f":NETPROXY-SVC-{number}", "-", "[0:0]")),
        "COMMIT",
    ]
