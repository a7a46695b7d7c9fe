"""From what is known of this node to what rules, policy and topology depend on. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address, ip_network

from msgspec import Struct, field

from controlloop.family import Family, IPAddress, IPNetwork
from proxy.config import DetectLocal, KubernetesSettings, ProxyMode, Settings
from proxy.node import Interfaces, Node, PodDetector, Surroundings

LOOPBACK = IPv4Network("127.0.0.0/8")
ADDRESS_TYPES = ("InternalIP", "ExternalIP")
LEAVING = "ToBeDeletedByClusterAutoscaler"


class Labels(Struct, frozen=True):
    zone: str = field(default="", name="topology.kubernetes.io/zone")


class Metadata(Struct, frozen=True, rename="camel"):
    uid: str = ""
    labels: Labels | None = None
    deletion_timestamp: str | None = None


class Taint(Struct, frozen=True):
    key: str = ""


class Spec(Struct, frozen=True):
    pod_cidr: str = field(default="", name="podCIDR")
    pod_cidrs: tuple[str, ...] | None = field(default=None, name="podCIDRs")
    taints: tuple[Taint, ...] | None = None


class NodeAddress(Struct, frozen=True):
    type: str = ""
    address: str = ""


class Status(Struct, frozen=True):
    addresses: tuple[NodeAddress, ...] | None = None


class ApiNode(Struct, frozen=True):
    """v1 Node."""

    metadata: Metadata
    spec: Spec = Spec()
    status: Status = Status()

    @property
    def zone(self) -> str:
        return (self.metadata.labels or Labels()).zone

    @property
    def is_eligible(self) -> bool:
        """Whether a load balancer should still send here: not when the node is about to go."""
        leaving = any(taint.key == LEAVING for taint in self.spec.taints or ())
        return self.metadata.deletion_timestamp is None and not leaving

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """Those inside the cluster first; what is no address is left out."""
        listed = self.status.addresses or ()
        texts = (each.address for wanted in ADDRESS_TYPES for each in listed if each.type == wanted)
        return tuple(filter(None, map(_address, texts)))

    @property
    def pod_cidrs(self) -> tuple[IPNetwork, ...]:
        texts = self.spec.pod_cidrs or ((self.spec.pod_cidr,) if self.spec.pod_cidr else ())
        return networks(texts)


class ServiceCidrSpec(Struct, frozen=True):
    cidrs: tuple[str, ...] | None = None


class ServiceCidr(Struct, frozen=True):
    """networking.k8s.io/v1 ServiceCIDR."""

    spec: ServiceCidrSpec = ServiceCidrSpec()


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known now."""

    api_node: ApiNode | None = None
    """As it was last seen; None: not known yet, or the source knows no Nodes."""
    local: frozenset[IPAddress] = frozenset()
    """The addresses of all interfaces."""
    outgoing: tuple[IPAddress, ...] = ()
    """Those from which this node calls the world."""
    service_cidrs: tuple[IPNetwork, ...] = ()
    exists: bool = False
    """The API has the Node now."""


def node_of(settings: Settings, facts: Facts) -> Node:
    return Node(settings.node_name, _zone(settings, facts), _addresses(settings, facts))


def surroundings_of(settings: Settings, facts: Facts, family: Family) -> Surroundings:
    return Surroundings(
        family,
        pods=_pods(settings, facts, family),
        node_port_addresses=_node_port_addresses(settings, facts, family),
        localhost_node_ports=family is Family.V4 and _serves_localhost(settings),
        service_cidrs=tuple(network for network in facts.service_cidrs if Family.of(network) is family),
        masquerade_all=settings.masquerade_all,
        masquerade_bit=settings.masquerade_bit,
        tcp_be_liberal=settings.conntrack.tcp_be_liberal,
    )


def is_enough(settings: Settings, facts: Facts) -> bool:
    """Whether rules written now would be right: the API says late which addresses and pods a node has."""
    if not isinstance(settings.source, KubernetesSettings):
        return True
    if facts.api_node is None or not facts.api_node.addresses:
        return False
    return settings.detection.mode is not DetectLocal.NODE_CIDR or bool(facts.api_node.pod_cidrs)


def networks(texts: Iterable[str]) -> tuple[IPNetwork, ...]:
    """Those that are networks; the API server has checked them."""
    found = []
    for text in texts:
        try:
            found.append(ip_network(text, strict=False))
        except ValueError:
            continue
    return tuple(found)


def _zone(settings: Settings, facts: Facts) -> str:
    return facts.api_node.zone if facts.api_node else settings.node_zone


def _addresses(settings: Settings, facts: Facts) -> tuple[IPAddress, ...]:
    """The first of each family; --bind-address is the first of its own."""
    if isinstance(settings.source, KubernetesSettings):
        candidates = facts.api_node.addresses if facts.api_node else ()
    else:
        candidates = facts.outgoing
    bound = (settings.bind_address,) if settings.bind_address else ()
    first: dict[Family, IPAddress] = {}
    for address in (*bound, *candidates):
        first.setdefault(Family.of(address), address)
    return tuple(first.values())


def _pods(settings: Settings, facts: Facts, family: Family) -> PodDetector:
    detection = settings.detection
    if detection.mode is DetectLocal.CLUSTER_CIDR:
        return detection.cluster_cidrs.get(family)
    if detection.mode is DetectLocal.NODE_CIDR:
        own = facts.api_node.pod_cidrs if facts.api_node else ()
        return next((network for network in own if Family.of(network) is family), None)
    return Interfaces(detection.interface, is_prefix=detection.mode is DetectLocal.INTERFACE_NAME_PREFIX)


def _node_port_addresses(settings: Settings, facts: Facts, family: Family) -> frozenset[IPAddress] | None:
    """None: all. What a family has no network for is not limited there, nor is what nobody knows yet."""
    wanted = settings.node_port_addresses
    if wanted.primary or (settings.mode is ProxyMode.NFTABLES and not wanted.networks):
        own = {address for address in _addresses(settings, facts) if Family.of(address) is family}
        return frozenset(address for address in own if not address.is_loopback) or None
    within = [network for network in wanted.networks if Family.of(network) is family]
    if not within or any(network.prefixlen == 0 for network in within):
        return None
    return frozenset(
        address for address in facts.local if not address.is_loopback and any(address in network for network in within)
    )


def _serves_localhost(settings: Settings) -> bool:
    wanted = settings.node_port_addresses
    if settings.mode is not ProxyMode.IPTABLES or not settings.localhost_node_ports or wanted.primary:
        return False
    within = [network for network in wanted.networks if isinstance(network, IPv4Network)]
    return not within or any(network.overlaps(LOOPBACK) for network in within)


def _address(text: str) -> IPAddress | None:
    try:
        return ip_address(text if "%" not in text else "")
    except ValueError:
        return None
