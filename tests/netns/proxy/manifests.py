"""Services and EndpointSlices in both families, with names of the network for addresses and all else as in Kubernetes.

What is not named here goes into `spec` as it is written: `service(externalTrafficPolicy="Local")`.
"""

from network import ADDRESSES

from controlloop.family import Family

SLICE_TYPES = {Family.V4: "IPv4", Family.V6: "IPv6"}


def port(number=80, protocol="TCP", *, name="", node=None):
    """A Service's port; `node` is its node port."""
    made = {"name": name, "protocol": protocol, "port": number}
    return made if node is None else {**made, "nodePort": node}


def service(
    name="web",
    at="cluster-ip",
    *,
    ports=None,
    external=(),
    balancer=(),
    ip_mode=None,
    labels=None,
    annotations=None,
    created=None,
    families=tuple(Family),
    **spec,
):
    addresses = [str(ADDRESSES[at][family]) for family in families] if at else []
    mode = {"ipMode": ip_mode} if ip_mode else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "namespace": "default",
            "name": name,
            "labels": labels or {},
            "annotations": annotations or {},
            "creationTimestamp": created,
        },
        "spec": {
            "clusterIP": addresses[0] if addresses else None,
            "clusterIPs": addresses,
            "externalIPs": _in(families, external),
            "ports": ports if ports is not None else [port()],
            **spec,
        },
        "status": {"loadBalancer": {"ingress": [{"ip": address, **mode} for address in _in(families, balancer)]}},
    }


def endpoint(pod, **fields):
    """Conditions as `ready=False`; everything else (`zone`, `hints`) as it stands in a slice."""
    conditions = {name: fields.pop(name) for name in ("ready", "serving", "terminating") if name in fields}
    node = "-".join(["node", pod.split("-")[1]])
    return {"addresses": [pod], "nodeName": node, "conditions": conditions, **fields}


def slices(*endpoints, of="web", name=None, ports=None, labels=None, families=tuple(Family)):
    """One EndpointSlice for each family. Endpoints by name, or whole (`endpoint`); their own ports as `port`."""
    whole = [endpoint(each) if isinstance(each, str) else each for each in endpoints]
    return [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": "default",
                "name": f"{name or of}-v{family.value}",
                "labels": {"kubernetes.io/service-name": of, **(labels or {})},
            },
            "addressType": SLICE_TYPES[family],
            "ports": ports if ports is not None else [port(8080)],
            "endpoints": [{**each, "addresses": _in([family], each["addresses"])} for each in whole],
        }
        for family in families
    ]


def _in(families, names):
    return [str(ADDRESSES[name][family]) for name in names for family in families]
