"""What is written: as much as changed, and no more at a restart."""

import pytest
from manifests import port, service, slices
from network import ADDRESSES
from tables import ANSWER_WITHIN_S

from controlloop.family import Family

kube_proxy = pytest.mark.kube_proxy

THREE = ("pod-1-1", "pod-1-2", "pod-2-1")


def numbered(number, *pods):
    """A Service with an address of its own and node port, and its slices."""
    name = f"other-{number}"
    made = service(name, at=None, type="NodePort", ports=[port(node=31000 + number)])
    addresses = [str(ADDRESSES["cluster-ip"][family] + 0x100 + number) for family in Family]
    made["spec"] |= {"clusterIP": addresses[0], "clusterIPs": addresses}
    return [made, *slices(*pods, of=name)]


def others(count):
    return [one for number in range(count) for one in numbered(number, *THREE)]


@kube_proxy("6.1-20", "6.1-21", "6.1-30", "6.1-33")
def test_what_does_not_change_a_connection_writes_nothing(rig):
    rig.given(service(), slices(*THREE), others(5))
    reordered = slices(*reversed(THREE))
    relabelled = service(labels={"team": "shop"}, annotations={"example.com/owner": "shop"})
    unrelated = slices("pod-1-1", of="nobody")
    for change in (service(), slices(*THREE), reordered, relabelled, unrelated):
        rig.add(change)
        assert set(rig.written.values()) == {0}


@kube_proxy("6.1-20", "6.1-21", "gap 5.3-1", "gap 5.7-1")
def test_a_change_costs_what_it_is_about(rig):
    """No more among fifty Services than among five, where it may be the first or last one of its kind."""
    costs = []
    for count in (5, 50):
        rig.given(service(), slices(*THREE[:2]), others(count))
        steps = []
        for change in (slices(*THREE), slices(*THREE[1:]), slices(), slices("pod-1-1")):
            rig.add(change)
            steps.append(dict(rig.written))
        costs.append(steps)
    for few, many in zip(*costs, strict=True):
        assert all(many[family] <= written for family, written in few.items()), costs
    assert all(0 < written <= 12 for step in costs[0] for written in step.values()), costs[0]


@kube_proxy("6.1-22", "6.2-8", "gap 5.6-3")
def test_a_restart_writes_what_is_different_and_forgets_nobody(rig):
    ours = service(sessionAffinity="ClientIP")
    rig.given(ours, slices(*THREE), others(5))
    held = rig.call("client", "cluster-ip", 80, count=6)
    home = {call.outcome for call in held}
    assert len(home) == 1
    rig.restart(ours, slices(*THREE), others(5))
    assert set(rig.written.values()) == {0}
    rig.restart(ours, slices(*THREE), others(4), numbered(4, "pod-2-2"), numbered(5, "pod-1-1"))
    assert all(0 < written <= 40 for written in rig.written.values()), rig.written
    assert all(rig.board.echo(call, b"still there", within_s=ANSWER_WITHIN_S) == 11 for call in held)
    assert set(rig.spread("client", "cluster-ip", 80, count=20)) == home
    rig.expect("""
        client -> node-1:31003 = pod-1-1 pod-1-2 pod-2-1 masqueraded
        client -> node-1:31004 = pod-2-2 masqueraded
        client -> node-1:31005 = pod-1-1 masqueraded
    """)
