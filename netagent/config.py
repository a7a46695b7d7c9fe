"""What netagent was told, checked. Pure; every error names the flag or variable and the value.

Names and defaults are flannel's (netagent.flags).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from controlloop.etcd_settings import EtcdSettings, etcd_settings
from controlloop.family import Family, IPAddress, IPNetwork
from controlloop.goflags import FlagValues, Given, parse_flags
from netagent.flags import GROUPS, PREFIX, SUBNET_FILE
from netagent.instance import LIMIT, Instance

MINUTES_PER_DAY = 1440
MAX_RESYNC_S = 86_400
DEBUG_LEVEL = 4
"""klog's level for what only somebody who debugs wants to see (Kubernetes logging conventions)."""


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    api_url: str
    kubeconfig_file: str
    annotation_prefix: str
    net_config_path: str
    set_node_network_unavailable: bool
    own_pod: str = ""
    """As namespace/name, where nothing but the Pod says on which node we are."""


@dataclass(frozen=True, slots=True)
class InterfaceChoice:
    """How to find the interface that carries the overlay: tried from top to bottom."""

    names: tuple[str, ...] = ()
    """Names or local addresses."""
    patterns: tuple[re.Pattern[str], ...] = ()
    can_reach: IPAddress | None = None
    public_ip: Mapping[Family, IPAddress] = field(default_factory=dict)
    """What peers are told; names the interface when nothing above is given."""

    @property
    def is_asked(self) -> bool:
        return bool(self.names or self.patterns or self.can_reach)


@dataclass(frozen=True, slots=True)
class FirewallSettings:
    ip_masq: bool
    masq_exclude: tuple[IPNetwork, ...]
    random_fully: bool
    forward_rules: bool
    resync_s: int
    peer_filter: bool


@dataclass(frozen=True, slots=True)
class Settings:
    node_name: str
    etcd: EtcdSettings
    kubernetes: KubernetesSettings | None
    """None: leases are in etcd."""
    interface: InterfaceChoice
    firewall: FirewallSettings
    subnet_file: str
    instance: Instance
    renew_margin_s: int
    service_cidrs: tuple[IPNetwork, ...]
    blackhole: bool
    tx_checksum_off: bool
    probe: bool
    healthz_ip: IPAddress
    healthz_port: int
    """0: no TCP port."""
    debug: bool
    ignored: Mapping[str, str]
    """Flags that were given and mean nothing to us, with their values."""

    @property
    def config_key(self) -> str:
        return self.kubernetes.net_config_path if self.kubernetes else self.etcd.config_key


def read_flags(argv: Sequence[str], environment: Mapping[str, str]) -> FlagValues:
    return parse_flags(GROUPS, argv, environment, PREFIX)


def settings_from(values: FlagValues, environment: Mapping[str, str], host_name: str) -> Settings:
    """`environment`: NODE_NAME and, where it is missing, the Pod's own name, as flanneld has them."""
    return Settings(
        node_name=parse_node_name(values.one("node-name"), environment.get("NODE_NAME", "").strip() or host_name),
        etcd=etcd_settings(values),
        kubernetes=kubernetes_settings(values, environment) if values.is_on("kube-subnet-mgr") else None,
        interface=interface_choice(values),
        firewall=firewall_settings(values),
        subnet_file=parse_file(values.one("subnet-file")),
        instance=instance_of(values),
        renew_margin_s=60 * values.number("subnet-lease-renew-margin", 1, MINUTES_PER_DAY - 1),
        service_cidrs=parse_networks(values.many("service-cidr")),
        blackhole=values.is_on("ip-blackhole-route"),
        tx_checksum_off=values.is_on("tx-checksum-off"),
        probe=not values.is_on("no-probe"),
        healthz_ip=parse_address(values.one("healthz-ip")),
        healthz_port=values.number("healthz-port", 0, 65_535),
        debug=values.number("v", -(2**31), 2**31 - 1) >= DEBUG_LEVEL,
        ignored={name: text for name in ("vmodule", "log_backtrace_at") if (text := values.text(name))},
    )


def instance_of(values: FlagValues) -> Instance:
    """CNI plugins read the subnet file: each overlay needs one of its own."""
    instance = Instance(values.number("instance", 0, LIMIT))
    if instance.number and values.text("subnet-file") == SUBNET_FILE:
        raise values.one("instance").refused("needs a --subnet-file of its own")
    return instance


def kubernetes_settings(values: FlagValues, environment: Mapping[str, str]) -> KubernetesSettings:
    return KubernetesSettings(
        api_url=values.text("kube-api-url"),
        kubeconfig_file=values.text("kubeconfig-file"),
        annotation_prefix=values.text("kube-annotation-prefix"),
        net_config_path=parse_file(values.one("net-config-path")),
        set_node_network_unavailable=values.is_on("set-node-network-unavailable"),
        own_pod="" if values.text("node-name") or environment.get("NODE_NAME", "").strip() else own_pod(environment),
    )


def own_pod(environment: Mapping[str, str]) -> str:
    pod = environment.get("POD_NAMESPACE", ""), environment.get("POD_NAME", "")
    return "/".join(pod) if all(pod) else ""


def interface_choice(values: FlagValues) -> InterfaceChoice:
    wanted = {Family.V4: values.one("public-ip"), Family.V6: values.one("public-ipv6")}
    reach = values.one("iface-can-reach")
    return InterfaceChoice(
        names=tuple(given.text for given in values.many("iface") if given.text),
        patterns=tuple(parse_pattern(given) for given in values.many("iface-regex") if given.text),
        can_reach=parse_address(reach) if reach.text else None,
        public_ip={family: parse_public_ip(given, family) for family, given in wanted.items() if given.text},
    )


def firewall_settings(values: FlagValues) -> FirewallSettings:
    return FirewallSettings(
        ip_masq=values.is_on("ip-masq"),
        masq_exclude=parse_networks(values.many("ip-masq-exclude")),
        random_fully=not values.is_on("ip-masq-fully-random-disable"),
        forward_rules=values.is_on("iptables-forward-rules"),
        resync_s=values.number("iptables-resync", 1, MAX_RESYNC_S),
        peer_filter=not values.is_on("no-peer-filter"),
    )


def parse_address(given: Given) -> IPAddress:
    try:
        return ip_address(given.text)
    except ValueError:
        raise given.refused("not an IP address") from None


def parse_public_ip(given: Given, family: Family) -> IPAddress:
    try:
        address = ip_address(given.text)
    except ValueError:
        address = None
    if address is None or Family.of(address) is not family or not is_host(address):
        raise given.refused(f"not an IPv{family.value} address that peers can send to")
    return address


def is_host(address: IPAddress) -> bool:
    return not (address.is_unspecified or address.is_multicast or address.is_loopback)


def parse_networks(given: Iterable[Given]) -> tuple[IPNetwork, ...]:
    """Host bits do not count, as for flannel's networks."""
    found = []
    for one in given:
        for text in filter(None, (part.strip() for part in one.text.split(","))):
            try:
                found.append(ip_network(text, strict=False))
            except ValueError:
                raise Given(one.source, text).refused("not a network in CIDR form") from None
    return tuple(found)


def parse_pattern(given: Given) -> re.Pattern[str]:
    try:
        return re.compile(given.text)
    except (re.error, OverflowError, RecursionError) as error:
        raise given.refused(f"not a regular expression: {error}") from None


def parse_file(given: Given) -> str:
    if not given.text or given.text.endswith("/"):
        raise given.refused("not a file")
    return given.text


def parse_node_name(given: Given, default: str) -> str:
    name = given.text.strip() if given.text else default
    if not name:
        raise given.refused("a node needs a name")
    return name
