"""From flags, and a configuration file where there is one, to Settings. Pure; errors name flag or field, and value.

Flags of kube-proxy and its configuration file are two ways to write one KubeProxyConfiguration, which is checked here
once. Flags that are ours alone count beside either.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from math import ceil
from typing import Any

from controlloop.durations import parse_duration
from controlloop.etcd_settings import etcd_settings
from controlloop.family import IPNetwork
from controlloop.goflags import FlagValues, Given
from proxy.checks import Checked
from proxy.config import FilesSettings, KubernetesSettings, ProxyMode, Settings, SourceSettings
from proxy.configuration import Configured, Remark, configuration_from, with_port
from proxy.flags import FIELDS, WITHOUT_EFFECT
from proxy.frontends import Balance

COUNTERS = "service-counters"
DEBUG_LEVEL = 4
"""klog's level for what only somebody who debugs wants to see (Kubernetes logging conventions)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the process runs."""

    host_name: str
    in_pod: bool
    """A service account for the API server is mounted."""


def configured_by(values: FlagValues) -> Configured:
    """What the flags say without --config."""
    fields = {path: value for name, value in _given(values) for path in FIELDS[name]}
    return configuration_from(fields, {path: name for name, paths in FIELDS.items() for path in paths})


def _given(values: FlagValues) -> Iterable[tuple[str, Any]]:
    for name in FIELDS:
        if name == "nodeport-addresses":
            if addresses := [part for given in values.many(name) for part in _parts(given.text)]:
                yield name, addresses
        elif name in PORTS:
            if (text := _listener(values, name)) is not None:
                yield name, text
        elif values.many(name):
            yield name, str(values.is_on(name)).lower() if values.is_switch(name) else values.text(name)


PORTS = {"healthz-bind-address": ("healthz-port", "0.0.0.0"), "metrics-bind-address": ("metrics-port", "127.0.0.1")}  # noqa: S104


def _listener(values: FlagValues, name: str) -> str | None:
    """Address and port, with the deprecated flag of the port alone taken in; None: nothing was said."""
    port_flag, host = PORTS[name]
    text = values.text(name).strip() if values.many(name) else None
    if not values.many(port_flag):
        return text
    port = values.number(port_flag, 0, 65_535)
    return with_port(text, host, port) if port else ""


def settings_from(values: FlagValues, configured: Configured, place: Place) -> Settings:
    checked = Checked(configured)
    content, mode = configured.content, checked.mode()
    source = choose_source(values, configured, place)
    return Settings(
        node_name=_node_name(values, configured, place.host_name),
        source=source,
        mode=mode,
        balance=_balance(values.one("balance")),
        external_ranges=_ranges(values.one("external-ip-ranges")),
        drain_s=_drain(values.one("drain-timeout")),
        node_zone=values.text("node-zone").strip(),
        bind_address=checked.bind_address(),
        detection=checked.detection(knows_nodes=isinstance(source, KubernetesSettings)),
        node_port_addresses=checked.node_port_addresses(),
        localhost_node_ports=content.iptables.localhost_node_ports,
        masquerade_all=checked.masquerade_all(),
        masquerade_bit=checked.masquerade_bit(),
        service_counters=values.is_on(COUNTERS),
        sync_period_s=checked.sync_period_s(),
        conntrack=checked.conntrack(),
        healthz=checked.listener("healthzBindAddress", content.healthz_bind_address),
        metrics=checked.listener("metricsBindAddress", content.metrics_bind_address),
        bind_hard_fail=content.bind_address_hard_fail,
        oom_score_adj=checked.number("oomScoreAdj", content.oom_score_adj, -1000, 1000),
        debug=is_debug(values) or content.logging.verbosity >= DEBUG_LEVEL,
        remarks=(*configured.remarks, *_remarks(values, configured, mode)),
    )


def is_debug(values: FlagValues) -> bool:
    return values.number("v", -(2**31), 2**31 - 1) >= DEBUG_LEVEL


def choose_source(values: FlagValues, configured: Configured, place: Place) -> SourceSettings:
    """What --source says; else a directory, an API server or an etcd that was named; else the cluster we run in.

    OperatorError when two were named, or none can be had.
    """
    asked, manifests = values.one("source"), values.text("manifests")
    kubernetes = KubernetesSettings(_kubeconfig(configured), values.one("master"))
    named = bool(kubernetes.kubeconfig.text or kubernetes.master.text)
    if manifests and named and not asked.text:
        raise values.one("manifests").refused(f"{kubernetes.kubeconfig.source} is there too; say --source")
    kind = asked.text or _named_source(values, bool(manifests), named or place.in_pod)
    match kind:
        case "kubernetes":
            if not named and not place.in_pod:
                raise asked.refused("needs --kubeconfig or --master; this is no pod of a cluster")
            return kubernetes
        case "etcd":
            if manifests:
                raise values.one("manifests").refused("not read with --source etcd")
            return etcd_settings(values)
        case "files":
            if not manifests:
                raise asked.refused("needs --manifests DIR")
            return FilesSettings(manifests)
    raise asked.refused("want kubernetes, etcd or files")


def _named_source(values: FlagValues, manifests: bool, kubernetes: bool) -> str:  # noqa: FBT001 - what was found
    if manifests:
        return "files"
    return "kubernetes" if kubernetes and not values.many("etcd-endpoints") else "etcd"


def _kubeconfig(configured: Configured) -> Given:
    path = "clientConnection.kubeconfig"
    return Given(configured.name(path), configured.content.client_connection.kubeconfig)


def _node_name(values: FlagValues, configured: Configured, host_name: str) -> str:
    """As the kubelet names a node: trimmed, in lower case."""
    flag = values.one("hostname-override")
    text = flag.text or configured.content.hostname_override
    name = (text or host_name).strip().lower()
    if not name:
        raise flag.refused("a node needs a name")
    return name


def _balance(given: Given) -> Balance:
    try:
        return Balance(given.text)
    except ValueError:
        raise given.refused(f"want {', '.join(balance.value for balance in Balance)}") from None


def _ranges(given: Given) -> tuple[IPNetwork, ...] | None:
    found = []
    for text in _parts(given.text):
        try:
            found.append(ip_network(text))
        except ValueError:
            raise Given(given.source, text).refused("not a network in CIDR form") from None
    return tuple(found) or None


def _drain(given: Given) -> int | None:
    if not given.text:
        return None
    try:
        seconds = parse_duration(given.text)
    except ValueError:
        seconds = -1.0
    if seconds < 0:
        raise given.refused("want a length of time such as 30s or 5m")
    return ceil(seconds)


def _remarks(values: FlagValues, configured: Configured, mode: ProxyMode) -> Iterable[Remark]:
    """Flags that were given and mean nothing."""
    idle = {flag.name for flag in WITHOUT_EFFECT[1]}
    for name in sorted(FIELDS.keys() | PORTS_ALONE | idle):
        if values.many(name) and (name in idle or configured.file):
            reason = "it has no effect here" if name in idle else f"{configured.file} counts instead"
            yield Remark(f"--{name}", values.text(name), reason)
    if values.is_on(COUNTERS) and mode is not ProxyMode.NFTABLES:
        yield Remark(f"--{COUNTERS}", "true", "counts in nftables mode alone")


PORTS_ALONE = {flag for flag, _ in PORTS.values()}


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
