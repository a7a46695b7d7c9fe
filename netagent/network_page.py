"""The network that this node's subnet is leased from, for who draws it or judges how full it is. Pure."""

from typing import Any

from subnet_alloc.model import NetworkConfig

API_VERSION = "nodenet.io/v1alpha1"


def network_document(config: NetworkConfig | None) -> dict[str, Any]:
    """No ranges and no backend before the configuration was read."""
    ranges = config.ranges.values() if config else ()
    items = [
        {
            "network": str(each.network),
            "subnet_len": each.subnet_len,
            "subnet_min": str(each.subnet_min),
            "subnet_max": str(each.subnet_max),
        }
        for each in ranges
    ]
    backend = config.backend_type if config else None
    return {"apiVersion": API_VERSION, "kind": "PodNetwork", "backend": backend, "ranges": items}
