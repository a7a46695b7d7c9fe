"""Breaks a lab, and heals it. What is broken stands in the lab's state, so that any later process can heal it."""

from collections.abc import Iterator, Sequence

from lab.cluster import Cluster, LabError
from lab.faults.fault import Fault
from lab.faults.node import DAEMONS, HOST
from lab.faults.overlay import OVERLAY
from lab.faults.services import SERVICES
from lab.faults.store import STORE
from lab.host import Host
from lab.topology import Spec

FAULTS = {fault.name: fault for fault in (*OVERLAY, *STORE, *DAEMONS, *HOST, *SERVICES)}


def named(name: str) -> Fault:
    if name not in FAULTS:
        raise LabError(f"no fault {name!r}; there are {', '.join(FAULTS)}")
    return FAULTS[name]


def break_lab(cluster: Cluster, name: str, target: str = "") -> str:
    """Where it was broken, as it was asked or by default. LabError when it cannot be, or is already."""
    fault = named(name)
    if name in cluster.faults:
        heal = f"netctl lab heal --name {cluster.spec.name} {name}"
        raise LabError(f"fault {name} is there already, on {cluster.faults[name]}; `{heal}` ends it")
    host = cluster.host(chosen(fault, cluster.spec, target))
    # First of all, so that what is half done can be undone.
    cluster.note_fault(name, host.name)
    try:
        fault.do(cluster, host)
    except BaseException:
        cluster.forget_fault(name)
        raise
    return host.name


def chosen(fault: Fault, spec: Spec, target: str) -> str:
    """LabError for a host of another kind, or that the lab lacks."""
    kind = fault.target.partition("-")[0]
    hosts = [host for host in spec.hosts if host.partition("-")[0] == kind]
    if fault.is_seen_by_others and spec.nodes == 1:
        raise LabError(f"fault {fault.name} is seen by other nodes, and lab {spec.name} has one")
    if not hosts or (fault.name in {"port", "redirect"} and not spec.pods_per_node):
        raise LabError(f"fault {fault.name} needs a pod, and lab {spec.name} has none")
    if target and target not in hosts:
        raise LabError(f"fault {fault.name} has no target {target!r}; it can have {', '.join(hosts)}")
    return target or (fault.target if fault.target in hosts else hosts[0])


def seen_on(fault: Fault, spec: Spec, target: str) -> str:
    """A node where the finding is raised."""
    if target in spec.node_names and not fault.is_seen_by_others:
        return target
    return next(name for name in spec.node_names if name != node_of(spec, target))


def node_of(spec: Spec, host: str) -> str:
    return next((node for node, pod in spec.all_pods if pod == host), host)


def heal_lab(cluster: Cluster, names: Sequence[str] = ()) -> Iterator[tuple[Fault, Host]]:
    """Undo these faults, or all there are, the newest first."""
    for name in names or list(cluster.faults)[::-1]:
        fault = named(name)
        if name not in cluster.faults:
            raise LabError(f"fault {name} is not there; those there are: {', '.join(cluster.faults) or 'none'}")
        host = cluster.host(cluster.faults[name])
        # What somebody undid by hand fails here, and is gone all the same.
        cluster.forget_fault(name)
        fault.undo(cluster, host)
        yield fault, host
