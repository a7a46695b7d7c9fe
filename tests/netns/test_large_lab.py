"""A lab of more nodes than the kernel's table of neighbors has room for, were they to learn of each other."""

import json
import os

import pytest

from lab.topology import Spec
from lab.wiring import LEARNING_NODES, ip, unwire, wire

NAME = f"large-{os.getpid()}"


@pytest.fixture
def spec(request):
    made = Spec(NAME, nodes=request.param, pods_per_node=0)
    try:
        wire(made)
        yield made
    finally:
        unwire(NAME)


def states(spec, node):
    """(address, how it is known) of the nodes that this one has to do with."""
    known = json.loads(ip("-n", spec.namespace(node), "-j", "neigh", "show", "dev", "eth0"))
    addresses = {str(spec.attached[other].ip) for other in spec.node_names}
    return {each["dst"]: tuple(each["state"]) for each in known if each["dst"] in addresses}


def pinged(spec, sender, receiver):
    address = str(spec.attached[receiver].ip)
    ip("netns", "exec", spec.namespace(sender), "ping", "-c", "1", "-W", "60", address)
    return address


@pytest.mark.parametrize("spec", [LEARNING_NODES + 1], indirect=True)
def test_nodes_of_a_large_lab_need_no_room_in_the_table_of_neighbors(spec):
    first, *others = spec.node_names
    for other in others:
        pinged(spec, first, other)
    assert states(spec, first) == {str(spec.attached[other].ip): ("PERMANENT",) for other in others}


@pytest.mark.parametrize("spec", [2], indirect=True)
def test_those_of_a_small_one_learn_of_each_other_as_real_ones_do(spec):
    assert states(spec, "node-1") == {}
    address = pinged(spec, "node-1", "node-2")
    [state] = states(spec, "node-1")[address]
    assert state != "PERMANENT"
