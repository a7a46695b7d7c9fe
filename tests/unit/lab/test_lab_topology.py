"""Names that tell labs apart, and addresses that do not collide."""

import pytest

from lab import cluster
from lab.cluster import LabError, attach, up
from lab.topology import MAX_NODES, Spec, is_namespace_of


def test_every_host_of_the_largest_lab_has_a_name_and_an_address_of_its_own():
    spec = Spec("big", nodes=MAX_NODES, pods_per_node=3)
    assert len(set(spec.hosts)) == len(spec.hosts) == 1 + MAX_NODES + 2 + 3 * MAX_NODES
    assert len(set(spec.attached.values())) == MAX_NODES + 2


@pytest.mark.parametrize("other", ["x-node", "x-pod-1", "x-switch", "xx", "x-node-1"])
def test_a_lab_knows_its_namespaces_from_those_of_one_that_begins_like_it(other):
    spec = Spec("x", nodes=12, pods_per_node=2)
    assert all(is_namespace_of("x", spec.namespace(host)) for host in spec.hosts)
    longer = Spec(other, nodes=12, pods_per_node=2)
    assert not any(is_namespace_of("x", longer.namespace(host)) for host in longer.hosts)


@pytest.fixture(autouse=True)
def no_labs(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "STATE_DIR", tmp_path / "labs")


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "1a", "a b", "a\n", "-a"])
def test_a_name_that_could_be_a_path_or_a_flag_is_refused_before_anything_is_made(name):
    with pytest.raises(LabError, match="cannot be a lab's name"):
        up(Spec(name))
    assert not cluster.STATE_DIR.exists()


def test_a_lab_that_is_not_up_is_named_with_those_that_are():
    (cluster.STATE_DIR / "other").mkdir(parents=True)
    (cluster.STATE_DIR / "other" / "state.json").write_text("{}")
    with pytest.raises(LabError, match=r"no lab named 'mine' is up \(running: other\)"):
        attach("mine")
