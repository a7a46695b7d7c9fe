"""Faults of etcd, and of what stands in it."""

from signal import SIGCONT, SIGSTOP, SIGTERM

import msgspec

from lab.cluster import NETWORK_CONFIG, NETWORK_CONFIG_KEY, SUBNETS_KEY, Cluster, LabError
from lab.faults.fault import Fault, commands
from lab.host import Host
from lab.processes import send
from lab.topology import ETCD_URL

ETCDCTL = f"etcdctl --endpoints {ETCD_URL}"
STOLEN = f"{SUBNETS_KEY}/10.244.250.0-24"
GARBAGE = f"{SUBNETS_KEY}/10.244.251.0-24"
BAD_SERVICE = "/nodenet/services/default/broken"


def stop(cluster: Cluster, _target: Host) -> None:
    cluster.stop("etcd", "etcd", SIGTERM)


def start(cluster: Cluster, _target: Host) -> None:
    cluster.start_etcd()


def freeze(cluster: Cluster, _target: Host) -> None:
    send([cluster.process("etcd", "etcd")], SIGSTOP)


def thaw(cluster: Cluster, _target: Host) -> None:
    send([cluster.process("etcd", "etcd")], SIGCONT)


def copy_lease(cluster: Cluster, target: Host) -> None:
    address = str(cluster.spec.attached[target.name].ip)
    lease = next((lease for lease in cluster.leases().values() if lease["PublicIP"] == address), None)
    if lease is None:
        raise LabError(f"{target.name} has no lease to copy")
    cluster.put(STOLEN, msgspec.json.encode(lease).decode())


STORE = (
    Fault(
        "etcd",
        "etcd is stopped",
        "NN401",
        ("check", "etcd"),
        stop,
        start,
        target="etcd",
    ),
    Fault(
        "frozen-etcd",
        "etcd takes connections and answers nothing",
        "NN401",
        ("check", "etcd"),
        freeze,
        thaw,
        target="etcd",
    ),
    Fault(
        "lease",
        "a second lease in etcd claims the address of {target}",
        "NN406",
        ("check", "etcd"),
        copy_lease,
        commands(f"{ETCDCTL} del {STOLEN}", on="etcd"),
        is_seen_by_others=True,
    ),
    Fault(
        "record",
        "a record among the leases cannot be read",
        "NN107",
        ("status",),
        commands(f"{ETCDCTL} put {GARBAGE} {{", on="etcd"),
        commands(f"{ETCDCTL} del {GARBAGE}", on="etcd"),
        target="etcd",
    ),
    Fault(
        "config",
        "the network configuration is deleted",
        "NN408",
        ("check", "etcd"),
        commands(f"{ETCDCTL} del {NETWORK_CONFIG_KEY}", on="etcd"),
        commands(f"{ETCDCTL} put {NETWORK_CONFIG_KEY} '{msgspec.json.encode(NETWORK_CONFIG).decode()}'", on="etcd"),
        target="etcd",
    ),
    Fault(
        "object",
        "a Service in etcd cannot be read",
        "NN205",
        ("status",),
        commands(f"{ETCDCTL} put {BAD_SERVICE} {{", on="etcd"),
        commands(f"{ETCDCTL} del {BAD_SERVICE}", on="etcd"),
        target="etcd",
    ),
)
