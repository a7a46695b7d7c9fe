"""What an operator, a neighbor or an outage may do to the daemons: one line where someone must act, patience where
time heals, and whatever cannot be understood is left out by name while all else converges.
"""

import os
import subprocess
import sys
from contextlib import contextmanager
from ipaddress import ip_network
from json import loads
from pathlib import Path
from shutil import rmtree
from signal import SIGTERM

import pytest
from builders import json
from deadline import PATIENCE_S, eventually

from controlloop.client import UnreachableError, get_json
from lab.cluster import NETWORK_CONFIG, NETWORK_CONFIG_KEY, SUBNETS_KEY, up
from lab.host import as_daemon
from lab.topology import ETCD_URL, POD_NETWORK, Spec
from lab.workload import apply, call, delete, endpoint_slice, service, start_responders

DAEMONS = ["netagent", "netproxy"]


@pytest.fixture(scope="module")
def lab():
    cluster = up(Spec(f"bad-{os.getpid()}", nodes=2, pods_per_node=1, mode="nftables"), owned=True)
    start_responders(cluster)
    yield cluster
    cluster.down()


def etcdctl(lab, *arguments):
    return lab.host("etcd").run(["etcdctl", "--endpoints", ETCD_URL, *arguments])


def program(name):
    return str(Path(sys.executable).with_name(name))


def document(lab, node, daemon):
    try:
        return get_json(lab.host(node).run_dir / f"nodenet/{daemon}.sock", "/status")
    except UnreachableError:
        return None


def is_ready(lab, node, daemon):
    found = document(lab, node, daemon)
    return found is not None and found["ready"]


def netctl_status(lab, node="node-2"):
    return lab.host(node).run(["netctl", "status"], check=False)


def reaches(lab, address, endpoint, caller="pod-2-1"):
    return call(lab.host(caller), address, 80)[0].startswith(endpoint)


def served(lab, name, address, pods=("pod-1-1",)):
    return [service(name, address), endpoint_slice(name, lab, pods)]


# A start that cannot succeed


def refusal(lab, tmp_path, daemon, *flags, start_as=lambda argv: argv):
    """How a daemon ends that runs beside the lab's own on node 2: its exit code and stderr."""
    # netproxy warns on a line of its own when it does not know the pods.
    pods = (f"--cluster-cidr={POD_NETWORK}",) if daemon == "netproxy" else ()
    flags = (f"--etcd-endpoints={ETCD_URL}", *pods, *flags)
    environment = {"RUNTIME_DIRECTORY": str(tmp_path / "nodenet")}
    argv = start_as([program(daemon), *flags])
    with lab.host("node-2").popen(argv, environment=environment, stderr=subprocess.PIPE, text=True) as process:
        return process.communicate(timeout=PATIENCE_S)[1], process.returncode


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ("{", '"{" is not JSON'),
        ('{"Network":"10.5.0.0"}', 'Network "10.5.0.0" is not an IPv4 network'),
        ('{"Network":"10.5.0.0/30"}', "10.5.0.0/30 is too small"),
        ('{"Network":"10.5.0.0/16","SubnetLen":8}', "SubnetLen 8"),
        ('{"Network":"10.5.0.0/16","Backend":{"Type":"foo"}}', 'Backend.Type "foo"'),
        ('{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":"one"}}', "VNI"),
    ],
)
def test_a_network_config_nobody_can_use_is_refused_by_key_and_value(lab, tmp_path, config, named):
    lab.put("/bad/config", config)
    stderr, code = refusal(lab, tmp_path, "netagent", "--etcd-prefix=/bad")
    assert (code, stderr.count("\n")) == (2, 1), stderr
    assert stderr.startswith("netagent: /bad/config: ")
    assert named in stderr


@pytest.mark.parametrize(
    ("daemon", "flag", "value"),
    [
        ("netagent", "--iface", "wlan9"),
        ("netagent", "--iface", "10.9.9.9"),
        ("netagent", "--public-ip", "256.0.0.1"),
        ("netagent", "--etcd-endpoints", "ftp://nowhere"),
        ("netagent", "--etcd-endpoints", ","),
        ("netagent", "--subnet-file", "/run/flannel/"),
        ("netproxy", "--proxy-mode", "ipvs"),
        ("netproxy", "--balance", "fastest"),
        ("netproxy", "--cluster-cidr", "10.244.0.0/33"),
        ("netproxy", "--etcd-endpoints", "http://h:99999"),
        ("netproxy", "--source", "dns"),
        ("netproxy", "--manifests", "/nonexistent"),
        ("netproxy", "--manifests", "/etc/passwd"),
    ],
)
def test_a_flag_nobody_can_use_is_refused_by_name_and_value(lab, tmp_path, daemon, flag, value):
    stderr, code = refusal(lab, tmp_path, daemon, f"{flag}={value}")
    assert (code, stderr.count("\n")) == (2, 1), stderr
    assert stderr.startswith(f"{daemon}: ")
    assert flag in stderr
    assert value in stderr


@pytest.mark.parametrize("daemon", DAEMONS)
@pytest.mark.parametrize("argument", ["--nonsense=1", "more"])
def test_an_argument_nobody_knows_is_refused_by_name(lab, tmp_path, daemon, argument):
    stderr, code = refusal(lab, tmp_path, daemon, argument)
    assert (code, stderr.count("\n")) == (2, 1), stderr
    assert argument.partition("=")[0] in stderr


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_runtime_folder_that_is_not_ours_is_named(lab, tmp_path, daemon):
    tmp_path.chmod(0o700)
    stderr, code = refusal(lab, tmp_path, daemon, start_as=as_daemon)
    assert code == 2, stderr
    assert stderr.splitlines()[-1].startswith(f"{daemon}: {tmp_path}/nodenet/{daemon}.")
    assert "Permission denied; this user needs" in stderr


# A start that has to wait


def start_unready(lab, daemon):
    """Started like the lab's own, but nobody waits for READY=1."""
    return lab.start(lab.host("node-2"), daemon, lab.daemon_argv("node-2", daemon))


def waits(lab, process, log_text):
    """Up, not ready, and has said why."""
    found = document(lab, "node-2", process.program)
    said = log_text in lab.log_of("node-2", process.program).read_text()
    return process.is_alive() and found is not None and not found["ready"] and said


def test_a_missing_network_config_is_waited_for(lab):
    lab.stop("node-2", "netagent", SIGTERM)
    etcdctl(lab, "del", NETWORK_CONFIG_KEY)
    process = start_unready(lab, "netagent")
    eventually(lambda: waits(lab, process, 'reason="the key does not exist"'))
    assert "waits for network configuration" in netctl_status(lab)
    lab.put(NETWORK_CONFIG_KEY, json(NETWORK_CONFIG).decode())
    eventually(lambda: is_ready(lab, "node-2", "netagent"))


@pytest.mark.flannel("32", "A3", "A4")
def test_an_etcd_away_at_the_start_is_waited_for(lab):
    objects = served(lab, "early", "10.96.9.1")
    apply(lab, *objects)
    for daemon in DAEMONS:
        lab.stop("node-2", daemon, SIGTERM)
    lab.stop("etcd", "etcd", SIGTERM)
    processes = [start_unready(lab, daemon) for daemon in DAEMONS]
    for process in processes:
        eventually(lambda p=process: waits(lab, p, f"{ETCD_URL}"))
    lab.start_etcd()
    for process in processes:
        eventually(lambda p=process: is_ready(lab, "node-2", p.program))
        assert process.is_alive()
    eventually(lambda: reaches(lab, "10.96.9.1", "pod-1-1"))
    delete(lab, *objects)


# An outage


@pytest.mark.flannel("33")
def test_while_etcd_is_away_traffic_goes_on_and_what_is_new_arrives_when_it_is_back(lab):
    before, later = served(lab, "before", "10.96.9.2"), served(lab, "later", "10.96.9.3")
    apply(lab, *before)
    eventually(lambda: reaches(lab, "10.96.9.2", "pod-1-1"))
    daemons = [lab.process(node, daemon) for node in lab.spec.node_names for daemon in DAEMONS]
    told = lab.log_of("node-2", "netproxy").read_text().count("not followed")
    lab.stop("etcd", "etcd", SIGTERM)
    try:
        eventually(lambda: lab.log_of("node-2", "netproxy").read_text().count("not followed") > told)
        assert reaches(lab, "10.96.9.2", "pod-1-1")
        assert all(process.is_alive() for process in daemons)
    finally:
        lab.start_etcd()
    apply(lab, *later)
    eventually(lambda: reaches(lab, "10.96.9.3", "pod-1-1"))
    lab.put(f"{SUBNETS_KEY}/10.244.251.0-24", lease("10.10.0.77"))
    eventually(lambda: lab.host("node-2").run(["ip", "route"]), that=lambda found: "10.244.251.0/24" in found)
    etcdctl(lab, "del", f"{SUBNETS_KEY}/10.244.251.0-24")
    assert all(process.is_alive() for process in daemons)
    delete(lab, *before, *later)


def lease(public_ip):
    return json(
        {
            "PublicIP": public_ip,
            "PublicIPv6": None,
            "BackendType": "vxlan",
            "BackendData": {"VNI": 1, "VtepMAC": "02:00:00:00:00:77"},
        }
    ).decode()


# What cannot be understood


def skipped(lab, daemon):
    return {each["name"]: each["reason"] for each in document(lab, "node-2", daemon)["skipped"]}


@pytest.mark.flannel("31", "A1")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("garbage", lease("10.10.0.78")),
        ("10.244.250.1-24", lease("10.10.0.78")),
        ("10.244.250.0-24", "{"),
        ("10.244.250.0-24", lease("not an address")),
        ("10.244.250.0-24", lease("10.10.0.78").replace("02:00", "nonsense")),
    ],
    ids=["key", "key-with-host-bits", "json", "address", "mac"],
)
def test_a_lease_that_makes_no_sense_is_skipped_by_name_and_the_next_one_counts(lab, key, value):
    node, good = lab.host("node-2"), f"{SUBNETS_KEY}/10.244.251.0-24"
    lab.put(f"{SUBNETS_KEY}/{key}", value)
    lab.put(good, lease("10.10.0.77"))
    eventually(lambda: node.run(["ip", "route"]), that=lambda found: "10.244.251.0/24" in found)
    assert f"! NN107 lease skipped: {key}" in netctl_status(lab)
    assert "10.244.250" not in node.run(["ip", "route"])
    etcdctl(lab, "del", f"{SUBNETS_KEY}/{key}")
    etcdctl(lab, "del", good)
    eventually(lambda: not skipped(lab, "netagent"))


OVERLAY = ("ip route", "ip neigh show dev flannel.1 nud permanent", "bridge fdb show dev flannel.1")
HOSTILE = {
    "our address": ("10.244.250.0-24", {"PublicIP": "10.10.0.2"}, "is ours"),
    "a subnet over ours": ("{over}", {}, "overlaps ours"),
    "a subnet inside ours": ("{inside}", {}, "overlaps ours"),
    "a default route": ("0.0.0.0-0", {}, ""),
    "half of all addresses": ("128.0.0.0-1", {}, ""),
    "the underlay": ("10.10.0.0-24", {}, "covers our address"),
    "a subnet outside": ("10.99.0.0-24", {}, "outside the network"),
    "loopback": ("10.244.250.0-24", {"PublicIP": "127.0.0.1"}, "loopback"),
    "link-local": ("10.244.250.0-24", {"PublicIP": "169.254.1.1"}, "link-local"),
    "a group's address": ("10.244.250.0-24", {"PublicIP": "224.0.0.1"}, "multicast"),
    "no address": ("10.244.250.0-24", {"PublicIP": "0.0.0.0"}, ""),
    "the broadcast address": ("10.244.250.0-24", {"PublicIP": "10.10.255.255"}, "broadcast"),
    "an address inside a pod subnet": ("10.244.250.0-24", {"PublicIP": "10.244.250.7"}, "inside its own subnet"),
    "a group's MAC": ("10.244.250.0-24", {"BackendData": {"VNI": 1, "VtepMAC": "01:00:5e:00:00:01"}}, "multicast"),
    "the broadcast MAC": ("10.244.250.0-24", {"BackendData": {"VNI": 1, "VtepMAC": "ff:ff:ff:ff:ff:ff"}}, "multicast"),
    "a MAC of zeros": ("10.244.250.0-24", {"BackendData": {"VNI": 1, "VtepMAC": "00:00:00:00:00:00"}}, "all zero"),
    "a MAC that is a number": ("10.244.250.0-24", {"BackendData": {"VNI": 1, "VtepMAC": 7}}, ""),
    "no MAC": ("10.244.250.0-24", {"BackendData": {"VNI": 1}}, ""),
    "data that is a list": ("10.244.250.0-24", {"BackendData": [1]}, ""),
    "an address that is a number": ("10.244.250.0-24", {"PublicIP": 5}, "PublicIP"),
    "a type that is a list": ("10.244.250.0-24", {"BackendType": ["vxlan"]}, "BackendType"),
    "another backend": ("10.244.250.0-24", {"BackendType": "host-gw"}, "host-gw"),
    "a megabyte": ("10.244.250.0-24", {"PublicIP": "x" * 1_000_000}, "PublicIP"),
}


def around_ours(lab):
    """Keys of a subnet over node-2's, and of one inside it."""
    [key] = [key for key, value in lab.leases().items() if value["PublicIP"] == "10.10.0.2"]
    subnet = ip_network(key.replace("-", "/"))
    parts = {"over": subnet.supernet(), "inside": next(subnet.subnets())}
    return {name: str(each).replace("/", "-") for name, each in parts.items()}


@contextmanager
def written(lab, key, value):
    """A lease that somebody wrote, for a while."""
    lab.host("etcd").run(["etcdctl", "--endpoints", ETCD_URL, "put", f"{SUBNETS_KEY}/{key}"], stdin=value)
    try:
        yield
    finally:
        etcdctl(lab, "del", f"{SUBNETS_KEY}/{key}")
        eventually(lambda: not skipped(lab, "netagent"))


@pytest.mark.flannel("31", "A1")
@pytest.mark.parametrize("claim", HOSTILE)
def test_a_lease_that_claims_what_is_not_its_own_is_refused_and_the_overlay_goes_on(lab, claim):
    key, fields, reason = HOSTILE[claim]
    key, node = key.format(**around_ours(lab)), lab.host("node-2")
    value = json({**loads(lease("10.10.0.78")), **fields}).decode()
    before = [node.run(command.split()) for command in OVERLAY]
    with written(lab, key, value):
        eventually(lambda: skipped(lab, "netagent"), that=lambda found: key in found)
        assert reason in skipped(lab, "netagent")[key]
        assert len(skipped(lab, "netagent")[key]) < 500
        assert [node.run(command.split()) for command in OVERLAY] == before
        assert node.succeeds(["ping", "-c1", "-W30", str(lab.pod_address("pod-1-1"))])


@pytest.mark.flannel("31")
def test_names_are_read_in_any_case_as_flanneld_reads_them(lab):
    good = f"{SUBNETS_KEY}/10.244.251.0-24"
    value = lease("10.10.0.77").replace("PublicIP", "publicip").replace("BackendType", "BACKENDTYPE")
    lab.put(good, value.replace("VtepMAC", "vtepmac").replace("BackendData", "backenddata"))
    eventually(lambda: lab.host("node-2").run(["ip", "route"]), that=lambda found: "10.244.251.0/24" in found)
    etcdctl(lab, "del", good)
    eventually(lambda: lab.host("node-2").run(["ip", "route"]), that=lambda found: "10.244.251.0/24" not in found)


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("services/default/broken", "{", "Service default/broken"),
        ("services/default/broken", json(service("other", "10.96.9.9")).decode(), "Service default/broken"),
        ("services/default/broken", json(service("broken", "10.96.9.999")).decode(), "Service default/broken"),
        ("services/orphan", "{}", "/nodenet/services/orphan"),
        ("endpointslices/default/broken-1", '{"endpoints": 3}', "EndpointSlice default/broken-1"),
    ],
    ids=["json", "another-name", "address", "key", "slice"],
)
def test_an_object_that_makes_no_sense_is_skipped_by_name_and_the_next_one_counts(lab, key, value, name):
    objects = served(lab, "good", "10.96.9.4")
    lab.put(f"/nodenet/{key}", value)
    apply(lab, *objects)
    eventually(lambda: reaches(lab, "10.96.9.4", "pod-1-1"))
    assert f" skipped: {name}" in netctl_status(lab)
    etcdctl(lab, "del", f"/nodenet/{key}")
    delete(lab, *objects)
    eventually(lambda: not skipped(lab, "netproxy"))


# Manifest files


@pytest.fixture
def manifests(lab):
    """A folder that node 2's netproxy follows in place of etcd."""
    folder = lab.host("node-2").run_dir / "manifests"
    folder.mkdir()
    lab.stop("node-2", "netproxy", SIGTERM)
    argv = [program("netproxy"), "--manifests=/run/manifests", "--proxy-mode=nftables", f"--cluster-cidr={POD_NETWORK}"]
    lab.start(lab.host("node-2"), "netproxy", as_daemon([*argv, "--hostname-override=node-2"]))
    eventually(lambda: is_ready(lab, "node-2", "netproxy"))
    yield folder
    rmtree(folder)
    lab.stop("node-2", "netproxy", SIGTERM)
    lab.start_daemons([("node-2", "netproxy")])


def write(folder, name, *objects):
    new = folder / f".{name}.new"
    new.write_text("".join(f"---\n{json(each).decode()}\n" for each in objects))
    new.rename(folder / name)


def test_manifest_files_are_served_as_they_come_and_go(lab, manifests):
    web = served(lab, "web", "10.96.9.5")
    write(manifests, "web.yaml", *web)
    eventually(lambda: reaches(lab, "10.96.9.5", "pod-1-1"))
    write(manifests, "web.yaml", web[0], endpoint_slice("web", lab, ["pod-2-1"]))
    eventually(lambda: reaches(lab, "10.96.9.5", "pod-2-1"))
    (manifests / "web.yaml").unlink()
    eventually(lambda: not document(lab, "node-2", "netproxy")["services"])


def test_a_manifest_that_makes_no_sense_is_skipped_by_name_and_the_others_count(lab, manifests):
    (manifests / "broken.yaml").write_text("{")
    write(manifests, "half.yaml", service("half", "10.96.9.999"), *served(lab, "whole", "10.96.9.6"))
    write(manifests, "slice.yaml", {**endpoint_slice("s", lab, ["pod-1-1"]), "addressType": "IPX"})
    write(manifests, "web.yaml", *served(lab, "web", "10.96.9.7"))
    for address in ("10.96.9.6", "10.96.9.7"):
        eventually(lambda a=address: reaches(lab, a, "pod-1-1"))
    eventually(lambda: skipped(lab, "netproxy"), that=lambda found: len(found) == 3)
    status = netctl_status(lab)
    for name in ("/run/manifests/broken.yaml", "Service default/half", "EndpointSlice default/s-1"):
        assert f" skipped: {name}" in status
