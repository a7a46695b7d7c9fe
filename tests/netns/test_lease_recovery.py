"""What becomes of leases when agents, pods or the store itself come and go: real agents on a real etcd."""

import json
import shutil
from signal import SIGTERM

import pytest
from deadline import becomes, eventually
from overlay_lab import overlay_lab

from lab.cluster import NETWORK_CONFIG_KEY, SUBNETS_KEY
from lab.pods import remove_pod
from lab.topology import ETCD_URL
from lab.workload import ping_all

FOREIGN = "10.244.250.0"
FOREIGN_LEASE = json.dumps(
    {
        "PublicIP": "10.10.0.77",
        "PublicIPv6": None,
        "BackendType": "vxlan",
        "BackendData": {"VNI": 1, "VtepMAC": "02:00:00:00:00:77"},
    }
)


@pytest.fixture(scope="module")
def lab():
    with overlay_lab("lease", nodes=2, pods_per_node=1) as made:
        yield made


def etcdctl(lab, *arguments):
    return lab.host("etcd").run(["etcdctl", "--endpoints", ETCD_URL, *arguments])


def unanswered(lab):
    """(pod, pod) of each ping that got no answer."""
    return [
        (source, to) for source, answered in ping_all(lab) for to, is_answered in answered.items() if not is_answered
    ]


def overlay(lab, name):
    """All on a node that mentions the foreign peer, and foreign routes."""
    node = lab.host(name)
    commands = ("ip route", "ip neigh show dev flannel.1 nud permanent", "bridge fdb show dev flannel.1")
    return [line for command in commands for line in node.run(command.split()).splitlines()]


def mentions(lab, name):
    return [line for line in overlay(lab, name) if FOREIGN in line or "10.10.0.77" in line]


def follows(lab, name):
    """Until the node has a route, a neighbor and an FDB entry of the foreign peer."""
    eventually(lambda: mentions(lab, name), that=lambda found: len(found) == 3)


def forgets(lab, name):
    becomes(lambda: mentions(lab, name), [])


def key_of(lab, name):
    """Of the node's lease."""
    address = str(lab.spec.attached[name].ip)
    [key] = eventually(lambda: [key for key, lease in lab.leases().items() if lease["PublicIP"] == address])
    return key


@pytest.mark.flannel("26")
def test_a_pod_that_is_made_again_is_reached_and_reaches_others(lab):
    node, pod = lab.host("node-2"), lab.host("pod-2-1")
    before = lab.pod_address("pod-2-1")
    remove_pod(node, pod)
    assert not lab.host("pod-1-1").succeeds(["ping", "-c1", "-W1", str(before)])
    lab.attach_pod("node-2", "pod-2-1")
    becomes(lambda: unanswered(lab), [])


@pytest.mark.flannel("27")
def test_agents_restarted_in_turn_keep_their_subnets(lab):
    before = lab.leases()
    for name in lab.spec.node_names:
        text = (lab.host(name).run_dir / "flannel/subnet.env").read_text()
        lab.stop(name, "netagent", SIGTERM)
        assert unanswered(lab) == []
        lab.start_daemons([(name, "netagent")])
        assert (lab.host(name).run_dir / "flannel/subnet.env").read_text() == text
    assert lab.leases() == before
    becomes(lambda: unanswered(lab), [])


@pytest.mark.flannel("40", "B4")
def test_a_peer_that_went_while_the_agent_was_away_is_gone_after_its_start_and_foreign_routes_stay(lab):
    lab.put(f"{SUBNETS_KEY}/{FOREIGN}-24", FOREIGN_LEASE)
    follows(lab, "node-1")
    lab.host("node-1").run(["ip", "route", "add", "198.51.100.0/24", "via", "10.10.255.2", "proto", "static"])
    lab.stop("node-1", "netagent", SIGTERM)
    etcdctl(lab, "del", f"{SUBNETS_KEY}/{FOREIGN}-24")
    forgets(lab, "node-2")
    assert len(mentions(lab, "node-1")) == 3
    lab.start_daemons([("node-1", "netagent")])
    forgets(lab, "node-1")
    assert any(line.startswith("198.51.100.0/24 ") for line in overlay(lab, "node-1"))


@pytest.mark.flannel("37", "A5")
def test_a_peer_that_moved_while_the_agent_was_away_is_followed_after_its_start(lab):
    lab.put(f"{SUBNETS_KEY}/{FOREIGN}-24", FOREIGN_LEASE)
    follows(lab, "node-1")
    lab.stop("node-1", "netagent", SIGTERM)
    moved = FOREIGN_LEASE.replace("10.10.0.77", "10.10.0.78").replace("00:77", "00:78")
    lab.put(f"{SUBNETS_KEY}/{FOREIGN}-24", moved)
    lab.start_daemons([("node-1", "netagent")])
    moved_to = "02:00:00:00:00:78 dst 10.10.0.78 self permanent"
    eventually(lambda: overlay(lab, "node-1"), that=lambda lines: moved_to in lines)
    assert not [line for line in overlay(lab, "node-1") if "00:77" in line or "10.10.0.77" in line]
    etcdctl(lab, "del", f"{SUBNETS_KEY}/{FOREIGN}-24")
    forgets(lab, "node-1")


@pytest.mark.flannel("35", "A12")
def test_an_own_key_that_somebody_deletes_is_written_again_for_the_same_subnet(lab):
    before, process = lab.leases(), lab.process("node-1", "netagent")
    etcdctl(lab, "del", f"{SUBNETS_KEY}/{key_of(lab, 'node-1')}")
    becomes(lab.leases, before)
    assert process.is_alive()
    becomes(lambda: unanswered(lab), [])


def lease_id(lab, key):
    """0 for a key that does not expire; etcdctl leaves it out then."""
    [found] = json.loads(etcdctl(lab, "get", f"{SUBNETS_KEY}/{key}", "-w", "json"))["kvs"]
    return found.get("lease", 0)


@pytest.mark.flannel("36", "A7")
def test_a_reservation_survives_its_agents_start(lab):
    """Made as the documentation of flannel says: the value put back without a lease."""
    key = key_of(lab, "node-2")
    assert lease_id(lab, key)
    lab.stop("node-2", "netagent", SIGTERM)
    lab.put(f"{SUBNETS_KEY}/{key}", etcdctl(lab, "get", "--print-value-only", f"{SUBNETS_KEY}/{key}").strip())
    assert not lease_id(lab, key)
    lab.start_daemons([("node-2", "netagent")])
    assert key_of(lab, "node-2") == key
    assert not lease_id(lab, key)
    becomes(lambda: unanswered(lab), [])


def exchange_store(lab, older=None):
    """etcd comes back empty, or with an older copy of its data."""
    data = lab.host("etcd").folder / "data"
    lab.stop("etcd", "etcd", SIGTERM)
    shutil.rmtree(data)
    if older:
        shutil.copytree(older, data)
    lab.start_etcd()


@pytest.mark.flannel("34")
def test_a_store_that_was_emptied_gets_the_same_leases_again(lab):
    before, config = lab.leases(), etcdctl(lab, "get", "--print-value-only", NETWORK_CONFIG_KEY).strip()
    exchange_store(lab)
    lab.put(NETWORK_CONFIG_KEY, config)
    becomes(lab.leases, before)
    becomes(lambda: unanswered(lab), [])


@pytest.mark.flannel("34")
def test_a_store_that_was_restored_gets_what_it_lacks_and_its_word_counts_for_the_rest(lab, tmp_path):
    """To a time when node-1 had no lease, and somebody had one who is gone by now."""
    before = lab.leases()
    lab.stop("node-1", "netagent", SIGTERM)
    etcdctl(lab, "del", f"{SUBNETS_KEY}/{key_of(lab, 'node-1')}")
    lab.put(f"{SUBNETS_KEY}/{FOREIGN}-24", FOREIGN_LEASE)
    lab.stop("etcd", "etcd", SIGTERM)
    shutil.copytree(lab.host("etcd").folder / "data", tmp_path / "older")
    lab.start_etcd()
    lab.start_daemons([("node-1", "netagent")])
    etcdctl(lab, "del", f"{SUBNETS_KEY}/{FOREIGN}-24")
    becomes(lab.leases, before)
    forgets(lab, "node-1")
    exchange_store(lab, tmp_path / "older")
    becomes(lab.leases, {**before, f"{FOREIGN}-24": json.loads(FOREIGN_LEASE)})
    for name in lab.spec.node_names:
        follows(lab, name)
    becomes(lambda: unanswered(lab), [])


@pytest.fixture
def no_packets_to_node_2(lab):
    """Between it and etcd, lost without a word: no connection is closed by it."""
    etcd, address = lab.host("etcd"), str(lab.spec.attached["node-2"].ip)
    etcd.run(["iptables", "-A", "INPUT", "-s", address, "-j", "DROP"])
    etcd.run(["iptables", "-A", "OUTPUT", "-d", address, "-j", "DROP"])
    yield lambda: etcd.run(["iptables", "-F"])
    etcd.run(["iptables", "-F"])


@pytest.mark.flannel("33")
def test_an_etcd_that_is_cut_off_without_a_word_is_missed_and_found_again(lab, no_packets_to_node_2):
    """Missed by an unanswered ping: one each 10 s, waited for for 5 s."""
    log = lab.log_of("node-2", "netagent")
    told = log.stat().st_size
    lab.put(f"{SUBNETS_KEY}/{FOREIGN}-24", FOREIGN_LEASE)
    eventually(lambda: log.read_bytes()[told:], that=lambda said: b"leases are not followed" in said)
    no_packets_to_node_2()
    follows(lab, "node-2")
    etcdctl(lab, "del", f"{SUBNETS_KEY}/{FOREIGN}-24")
    forgets(lab, "node-2")


@pytest.mark.flannel("35", "A11")
def test_a_stolen_lease_is_noticed_and_replaced_and_the_thief_is_named(lab):
    stolen = key_of(lab, "node-2")
    lab.put(f"{SUBNETS_KEY}/{stolen}", FOREIGN_LEASE)
    eventually(lambda: key_of(lab, "node-2"), that=lambda key: key != stolen)
    assert lab.leases()[stolen]["PublicIP"] == "10.10.0.77"
    assert "wrote something else into it, for 10.10.0.77" in lab.log_of("node-2", "netagent").read_text()
    # The bridge is the pods' and still has an address of the other subnet.
    remove_pod(lab.host("node-2"), lab.host("pod-2-1"))
    lab.host("node-2").run(["ip", "link", "del", "cni0"])
    lab.attach_pod("node-2", "pod-2-1")
    becomes(lambda: unanswered(lab), [])
