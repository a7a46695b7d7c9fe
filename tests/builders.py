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
):
    """Ports as (name, protocol, number)."""
    metadata = {"namespace": namespace, "name": name, "creationTimestamp": created}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": without_none({**metadata, "labels": labels, "annotations": annotations}),
        "spec": without_none(
            {
                "type": type,
                "clusterIP": cluster_ips[0] if cluster_ips else None,
                "clusterIPs": list(cluster_ips),
                "ports": [{"name": name, "protocol": protocol, "port": port} for name, protocol, port in ports],
            }
        ),
    }


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


def make_endpoint(*addresses, node=None, **conditions):
    """Conditions as `ready=True`, `serving=None`, `terminating=True`."""
    return {"addresses": list(addresses), "nodeName": node, "conditions": conditions}
