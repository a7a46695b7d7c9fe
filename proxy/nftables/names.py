"""Names of chains and containers. Pure.

A name that comes from Kubernetes may be any text; here it is cut down to what nft takes for a name, and a digest of
the whole keeps names apart.
"""

import re
from hashlib import sha256

from proxy.frontends import Endpoint, Frontend, Protocol

LENGTH = 120
STRANGE = re.compile(r"[^A-Za-z0-9./_-]")

SERVICES, NODE_PORTS = "services", "node-ports"
NO_ENDPOINTS, NO_ENDPOINT_NODE_PORTS = "no-endpoints", "no-endpoint-node-ports"
SOURCES, CLUSTER_IPS, NODE_PORT_ADDRESSES, HAIRPIN = "sources", "cluster-ips", "node-port-addresses", "hairpin"
SERVICE_NETWORKS = "service-networks"


def named(kind: str, identity: str, readable: str = "") -> str:
    """Unique by the identity's digest; what a person may read comes behind it, as far as there is room."""
    digest = sha256(identity.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{kind}-{digest}-{STRANGE.sub('-', readable)}"[:LENGTH].rstrip("-")


def of_frontend(kind: str, frontend: Frontend) -> str:
    """The name of what belongs to one frontend alone."""
    protocol = frontend.protocol.value
    identity = f"{frontend.name}|{frontend.address}|{protocol}|{frontend.port}"
    return named(kind, identity, f"{frontend.name.service}/{protocol}/{frontend.port}")


def of_endpoint(frontend: Frontend, endpoint: Endpoint) -> tuple[str, str]:
    """The chain that remembers who was sent to an endpoint, and its set of clients.

    All frontends of a service port have them in common.
    """
    identity = f"{frontend.name}|{frontend.protocol.value}|{endpoint}"
    readable = f"{frontend.name.service}/{endpoint.address}/{endpoint.port}"
    return named("endpoint", identity, readable), named("clients", identity, readable)


def endpoints_map(protocol: Protocol, *, is_node_port: bool) -> str:
    """Slot to endpoint. A node port is called at any address, so its port alone is in the key."""
    return f"{protocol.value}{'-node-port' if is_node_port else ''}-endpoints"
