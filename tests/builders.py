"""Kubernetes objects with everything left out that a test does not speak of."""

import json as stdlib_json


def json(made):
    return stdlib_json.dumps(made).encode()


def without_none(fields):
    return {key: value for key, value in fields.items() if value is not None}


def make_service(
    *,
    name="web",
    namespace="default",
    cluster_ips=("10.96.0.10",),
    ports=(("http", "TCP", 80),),
    type=None,  # noqa: A002 - the field's name
    created=None,
    labels=None,
    annotations=None,
    ingress=None,
    **spec,
):
    """Ports as (name, protocol, number), or with a node port behind it; any other field of `spec` by its own name.
    Ingress as what stands in the load balancer's status.
    """
    metadata = {"namespace": namespace, "name": name, "creationTimestamp": created}
    fields = ("name", "protocol", "port", "nodePort")
    made = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": without_none({**metadata, "labels": labels, "annotations": annotations}),
        "spec": without_none(
            {
                "type": type,
                "clusterIP": cluster_ips[0] if cluster_ips else None,
                "clusterIPs": list(cluster_ips),
                "ports": [dict(zip(fields, port, strict=False)) for port in ports],
                **spec,
            }
        ),
    }
    return made if ingress is None else {**made, "status": {"loadBalancer": {"ingress": ingress}}}


def make_endpoint_slice(
    *,
    name="web-1",
    namespace="default",
    service="web",
    address_type="IPv4",
    ports=(("http", "TCP", 8080),),
    endpoints=("10.244.1.5",),
    labels=None,
):
    """Endpoints as addresses, or whole for a test of their fields (`make_endpoint`)."""
    service_label = {"kubernetes.io/service-name": service} if service is not None else {}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"namespace": namespace, "name": name, "labels": {**service_label, **(labels or {})}},
        "addressType": address_type,
        "ports": [{"name": name, "protocol": protocol, "port": port} for name, protocol, port in ports],
        "endpoints": [each if isinstance(each, dict) else make_endpoint(each) for each in endpoints],
    }


def make_endpoint(*addresses, node=None, zone=None, for_zones=None, for_nodes=None, **conditions):
    """Conditions as `ready=True`, `serving=None`, `terminating=True`; hints as names."""
    hints = {"forZones": for_zones, "forNodes": for_nodes}
    named = {field: [{"name": name} for name in names] for field, names in without_none(hints).items()}
    made = {"addresses": list(addresses), "nodeName": node, "zone": zone, "conditions": conditions}
    return without_none({**made, "hints": named or None})
