"""What netproxy was told, checked (`proxy.command_line`), and what of it may change while it runs. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any

import msgspec

from controlloop.etcd_settings import EtcdSettings
from controlloop.family import Family, IPAddress, IPNetwork
from controlloop.goflags import Given
from proxy.configuration import Remark
from proxy.frontends import Balance


class ProxyMode(Enum):
    IPTABLES = "iptables"
    NFTABLES = "nftables"


class DetectLocal(Enum):
    """How to tell that a packet comes from a pod."""

    CLUSTER_CIDR = "ClusterCIDR"
    NODE_CIDR = "NodeCIDR"
    BRIDGE_INTERFACE = "BridgeInterface"
    INTERFACE_NAME_PREFIX = "InterfaceNamePrefix"


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """Both empty: the service account of the pod we run in."""

    kubeconfig: Given
    master: Given


@dataclass(frozen=True, slots=True)
class FilesSettings:
    manifests: str


SourceSettings = KubernetesSettings | EtcdSettings | FilesSettings


@dataclass(frozen=True, slots=True)
class Detection:
    """What a mode does not need is empty."""

    mode: DetectLocal = DetectLocal.CLUSTER_CIDR
    cluster_cidrs: Mapping[Family, IPNetwork] = field(default_factory=dict)
    interface: str = ""


@dataclass(frozen=True, slots=True)
class Listener:
    address: IPAddress
    port: int
    source: str
    """The flag or field that names it, for an error's text."""


@dataclass(frozen=True, slots=True)
class NodePortAddresses:
    """At which of the node's addresses node ports are served. Neither: at all in iptables mode, at the primary ones in
    nftables mode, as kube-proxy.
    """

    primary: bool = False
    networks: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, slots=True)
class ConntrackSettings:
    """0: the kernel's value stays."""

    max_per_core: int = 32_768
    min: int = 131_072
    tcp_established_s: float = 86_400.0
    tcp_close_wait_s: float = 3_600.0
    tcp_be_liberal: bool = False
    udp_s: float = 0.0
    udp_stream_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Settings:
    node_name: str
    source: SourceSettings
    mode: ProxyMode = ProxyMode.IPTABLES
    balance: Balance = Balance.RANDOM
    external_ranges: tuple[IPNetwork, ...] | None = None
    """Where external IPs and load balancer addresses may be; None: anywhere."""
    drain_s: int | None = None
    """For Services that do not say it themselves; None: flows live until they die."""
    node_zone: str = ""
    """For sources that know no Node."""
    bind_address: IPAddress | None = None
    """The node's own primary address; None: found out."""
    detection: Detection = Detection()
    node_port_addresses: NodePortAddresses = NodePortAddresses()
    localhost_node_ports: bool = True
    masquerade_all: bool = False
    masquerade_bit: int = 14
    service_counters: bool = False
    """Count connections and bytes of each Service."""
    sync_period_s: float = 30.0
    """All rules are checked that often."""
    conntrack: ConntrackSettings = ConntrackSettings()
    healthz: Listener | None = None
    metrics: Listener | None = None
    bind_hard_fail: bool = False
    oom_score_adj: int = -999
    debug: bool = False
    remarks: tuple[Remark, ...] = ()

    @property
    def source_kind(self) -> str:
        """As --source names it."""
        kinds = {KubernetesSettings: "kubernetes", EtcdSettings: "etcd", FilesSettings: "files"}
        return kinds[type(self.source)]


def shown(settings: Settings) -> dict[str, Any]:
    """All of it in plain values, for people; secrets are not."""
    document: dict[str, Any] = msgspec.to_builtins(settings, enc_hook=str)
    if document["source"].get("password"):
        document["source"]["password"] = "..."  # noqa: S105 - what stands for one
    return document


LIVE = (
    "bind_address",
    "detection",
    "node_port_addresses",
    "localhost_node_ports",
    "masquerade_all",
    "masquerade_bit",
    "remarks",
)
"""What a changed --config can change from one moment to the next. All else is read once, at the start."""


def apply_live(running: Settings, wanted: Settings) -> tuple[Settings, tuple[str, ...]]:
    """Of changed settings those that can be applied now, and the names of the others, which wait for a restart."""
    live = {name: getattr(wanted, name) for name in LIVE}
    waiting = (each.name for each in fields(Settings) if each.name not in LIVE)
    different = tuple(name for name in waiting if getattr(running, name) != getattr(wanted, name))
    return replace(running, **live), different
