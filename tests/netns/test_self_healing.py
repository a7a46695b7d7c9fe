"""Whatever somebody breaks in a node's overlay is back at once, and packets flow again. One lab for all kinds."""

import json
import time
from operator import itemgetter
from signal import SIGTERM

import pytest
from deadline import eventually
from overlay_lab import overlay_lab

from controlloop.client import get_json
from controlloop.repairs import BURST, PERIOD_S
from lab.host import ProgramError


@pytest.fixture(scope="module")
def lab():
    with overlay_lab("heal", nodes=2, pods_per_node=1) as made:
        yield made


@pytest.fixture(scope="module")
def node(lab):
    return lab.host("node-1")


@pytest.fixture(scope="module")
def other(lab):
    return lab.host("node-2")


@pytest.fixture(scope="module")
def peer(lab):
    """The other node's subnet, VTEP and address, as the leases tell it."""
    [(key, lease)] = [(key, lease) for key, lease in lab.leases().items() if lease["PublicIP"] == "10.10.0.2"]
    address, _, bits = key.partition("-")
    return {"subnet": f"{address}/{bits}", "gateway": address, "mac": lease["BackendData"]["VtepMAC"]}


def sh(host, command):
    return host.run(command.split())


def overlay_of(node):
    """All that makes the overlay of a node, without interface numbers and counters."""
    link = json.loads(node.run(["ip", "-j", "-d", "link", "show", "flannel.1"]))[0]
    return {
        "mac": link["address"],
        "mtu": link["mtu"],
        "up": "UP" in link["flags"],
        "alias": link.get("ifalias"),
        "vxlan": {key: link["linkinfo"]["info_data"].get(key) for key in ("id", "link", "local", "port", "learning")},
        "addresses": sorted(sh(node, "ip -4 -br address show dev flannel.1").split()[2:]),
        "routes": sorted(sh(node, "ip -4 route show proto 78").splitlines()),
        "neighbors": sorted(sh(node, "ip neigh show dev flannel.1 nud permanent").splitlines()),
        "fdb": sorted(sh(node, "bridge fdb show dev flannel.1").splitlines()),
    }


def status(node):
    return get_json(node.run_dir / "nodenet" / "netagent.sock", "/status")


def is_ready(node):
    return status(node)["ready"]


def gets_ready(node):
    eventually(lambda: status(node), that=itemgetter("ready"))


def pings(lab):
    return lab.host("pod-1-1").succeeds(["ping", "-c1", "-W1", str(lab.pod_address("pod-2-1"))])


def comes_back(lab, node, before):
    """In how many milliseconds."""
    started = time.monotonic()
    eventually(lambda: matches(node, before))
    took_ms = (time.monotonic() - started) * 1000
    eventually(lambda: pings(lab))
    return took_ms


def matches(node, before):
    try:
        actual = overlay_of(node)
    except ProgramError:  # no device yet
        return False
    assert actual == before
    return True


DRIFT = {
    "route deleted": ("route", "ip route del {subnet}"),
    "route replaced": ("route", "ip route replace {subnet} via 10.244.255.1 dev flannel.1 onlink proto 78"),
    "route added": ("route", "ip route add 10.99.0.0/24 via {gateway} dev flannel.1 onlink proto 78"),
    "routes flushed": ("route", "ip route flush proto 78"),
    "neighbor deleted": ("neighbor", "ip neigh del {gateway} dev flannel.1"),
    "neighbor changed": ("neighbor", "ip neigh replace {gateway} lladdr 02:bb:bb:bb:bb:bb dev flannel.1"),
    "neighbor made transient": ("neighbor", "ip neigh replace {gateway} lladdr {mac} nud reachable dev flannel.1"),
    "FDB entry deleted": ("fdb", "bridge fdb del {mac} dev flannel.1"),
    "FDB entry changed": ("fdb", "bridge fdb replace {mac} dev flannel.1 dst 10.10.0.77"),
    "FDB entry added": ("fdb", "bridge fdb append 00:00:00:00:00:00 dev flannel.1 dst 10.10.0.77"),
    "address deleted": ("address", "ip address flush dev flannel.1"),
    "address added": ("address", "ip address add 10.99.0.1/24 dev flannel.1"),
    "MTU changed": ("link", "ip link set flannel.1 mtu 1300"),
    "MAC changed": ("link", "ip link set flannel.1 address 02:bb:bb:bb:bb:bb"),
    "alias changed": ("link", "ip link set flannel.1 alias other"),
    "learning switched on": ("link", "ip link set flannel.1 type vxlan learning"),
    "link down": ("link", "ip link set flannel.1 down"),
    "link deleted": ("link", "ip link del flannel.1"),
}


@pytest.mark.flannel("38", "39", "B1", "B3")
@pytest.mark.parametrize("what", DRIFT)
def test_drift_is_repaired_at_once_and_counted(lab, node, peer, what):
    kind, command = DRIFT[what]
    before, repairs = overlay_of(node), status(node)["repairs"].get(kind, 0)
    sh(node, command.format(**peer))
    took_ms = comes_back(lab, node, before)
    print(f"\n{what}: seen back after {took_ms:.0f} ms")
    eventually(lambda: status(node)["repairs"], that=lambda counted: counted.get(kind, 0) > repairs)
    gets_ready(node)


@pytest.mark.flannel("39", "B2")
def test_an_underlay_that_was_down_carries_the_overlay_again(lab, node):
    before = overlay_of(node)
    sh(node, "ip link set eth0 down")
    sh(node, "ip link set eth0 up")
    sh(node, "ip route add default via 10.10.255.2")
    comes_back(lab, node, before)
    gets_ready(node)


def replace_nic(lab, name, address):
    """The same hardware as a new eth0 with another index, as after a driver was loaded again."""
    host, switch = lab.host(name), lab.host("switch")
    mac = json.loads(sh(host, "ip -j link show eth0"))[0]["address"]
    sh(host, "ip link del eth0")
    sh(host, f"ip link add eth0 index 4242 address {mac} type veth peer name {name} netns {switch.namespace}")
    sh(switch, f"ip link set {name} master underlay up")
    for line in (f"ip address add {address} dev eth0", "ip link set eth0 up", "ip route add default via 10.10.255.2"):
        sh(host, line)


@pytest.mark.flannel("39", "B2", "B3")
def test_a_nic_that_was_deleted_and_made_again_gets_its_overlay_back_with_the_same_mac(lab, other):
    before, leases = overlay_of(other), lab.leases()
    sh(other, "ip link del flannel.1")
    replace_nic(lab, "node-2", "10.10.0.2/16")
    took_ms = comes_back(lab, other, before)
    print(f"\nNIC made again: seen back after {took_ms:.0f} ms")
    assert lab.leases() == leases
    gets_ready(other)


@pytest.mark.flannel("B6")
def test_a_new_address_of_the_underlay_is_published_in_place_and_used(lab, other):
    leases, before = lab.leases(), overlay_of(other)
    for old, new in (("10.10.0.2", "10.10.7.2"), ("10.10.7.2", "10.10.0.2")):
        for line in (f"del {old}/16", f"add {new}/16"):
            sh(other, f"ip address {line} dev eth0")
        sh(other, "ip route replace default via 10.10.255.2")
        moved = {**before, "vxlan": {**before["vxlan"], "local": new}}
        eventually(lambda moved=moved: matches(other, moved))
        eventually(lab.leases, that=lambda found, new=new: new in {lease["PublicIP"] for lease in found.values()})
        assert lab.leases().keys() == leases.keys()
        eventually(lambda: pings(lab))
        gets_ready(other)
    assert overlay_of(other) == before
    assert lab.leases() == leases


def test_another_writer_that_keeps_undoing_us_is_named_and_not_fought_without_end(lab, node, peer):
    before, began = status(node)["repairs"].get("fdb", 0), time.monotonic()
    vandal = ["bash", "-c", f"while true; do bridge fdb del {peer['mac']} dev flannel.1 2>/dev/null; sleep 0.01; done"]
    with node.popen(vandal) as process:
        try:
            found = eventually(lambda: [each for each in status(node)["findings"] if peer["mac"] in each["name"]])
            assert not is_ready(node)
            repairs = status(node)["repairs"]["fdb"] - before
            assert repairs <= BURST + (time.monotonic() - began) / PERIOD_S + 2
        finally:
            process.kill()
    assert (found[0]["code"], "undone" in found[0]["reason"]) == ("NN108", True)
    assert "repairs held back" in lab.log_of("node-1", "netagent").read_text()
    eventually(lambda: pings(lab))
    gets_ready(node)


def test_a_storm_of_foreign_changes_costs_little_and_drift_behind_it_is_found(lab, node, peer):
    before = overlay_of(node)
    batch = [
        f"neigh replace 10.10.{n // 250 + 100}.{n % 250 + 1} lladdr 02:00:00:00:00:01 dev eth0" for n in range(2000)
    ]
    for _ in range(5):
        node.run(["ip", "-batch", "-"], stdin="\n".join(batch) + "\n")
    sh(node, "ip neigh flush dev eth0 nud permanent")
    sh(node, f"ip route del {peer['subnet']}")
    comes_back(lab, node, before)
    gets_ready(node)


def attempts(lab):
    """How often node-1 has said that it will try something again."""
    return lab.log_of("node-1", "netagent").read_text().count("retry_in_s=")


@pytest.mark.flannel("33", "47")
def test_a_registry_that_is_away_makes_a_node_unready_and_its_return_ready(lab, node):
    tries = attempts(lab)
    lab.stop("etcd", "etcd", SIGTERM)
    try:
        waiting = eventually(lambda: status(node)["waiting_for"])
        assert "registry" in waiting
        assert pings(lab)
        assert 1 <= attempts(lab) - tries < 60, "it asks again and again without a pause"
    finally:
        lab.start_etcd()
    gets_ready(node)
