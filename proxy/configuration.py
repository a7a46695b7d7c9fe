"""KubeProxyConfiguration v1alpha1: what kube-proxy reads from --config, and what its flags amount to. Pure.

Decoding is strict at first; what a strict reader would refuse for being unknown is then named and passed over. A value
of the wrong type is wrong in either case. As in Kubernetes, null and empty text stand for an absent field.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from controlloop.errors import OperatorError
from controlloop.printable import printable

API_VERSION = "kubeproxy.config.k8s.io/v1alpha1"
KIND = "KubeProxyConfiguration"


class Section(Struct, frozen=True, rename="camel"):
    """Durations are text as Go writes them."""


class ClientConnection(Section, frozen=True):
    kubeconfig: str = ""
    accept_content_types: str = ""
    content_type: str = ""
    qps: float = 0.0
    burst: int = 0


class Logging(Section, frozen=True):
    verbosity: int = 0
    format: str = ""
    flush_frequency: int | str = 0
    vmodule: list[Any] = []
    options: dict[str, Any] = {}


class Iptables(Section, frozen=True):
    masquerade_bit: int = 14
    masquerade_all: bool = False
    localhost_node_ports: bool = True
    sync_period: str = "0s"
    min_sync_period: str = "0s"


class Nftables(Section, frozen=True):
    masquerade_bit: int = 14
    masquerade_all: bool = False
    sync_period: str = "0s"
    min_sync_period: str = "0s"


class DetectLocal(Section, frozen=True):
    bridge_interface: str = ""
    interface_name_prefix: str = ""


class Conntrack(Section, frozen=True):
    max_per_core: int = 32_768
    min: int = 131_072
    tcp_established_timeout: str = "24h0m0s"
    tcp_close_wait_timeout: str = "1h0m0s"
    tcp_be_liberal: bool = False
    udp_timeout: str = "0s"
    udp_stream_timeout: str = "0s"


class KubeProxyConfiguration(Section, frozen=True):
    api_version: str = API_VERSION
    kind: str = KIND
    feature_gates: dict[str, bool] = {}
    client_connection: ClientConnection = ClientConnection()
    logging: Logging = Logging()
    hostname_override: str = ""
    bind_address: str = "0.0.0.0"  # noqa: S104 - kube-proxy's; it stands for the node's own
    healthz_bind_address: str | None = None
    metrics_bind_address: str | None = None
    """`IP:PORT` after `complete`; empty: nowhere, which only a flag can say."""
    bind_address_hard_fail: bool = False
    enable_profiling: bool = False
    show_hidden_metrics_for_version: str = ""
    mode: str = "iptables"
    iptables: Iptables = Iptables()
    ipvs: dict[str, Any] = {}
    nftables: Nftables = Nftables()
    winkernel: dict[str, Any] = {}
    detect_local_mode: str = "ClusterCIDR"
    detect_local: DetectLocal = DetectLocal()
    cluster_cidr: str = field(default="", name="clusterCIDR")
    node_port_addresses: tuple[str, ...] = ()
    oom_score_adj: int = -999
    conntrack: Conntrack = Conntrack()
    config_sync_period: str = "0s"
    port_range: str = ""
    windows_run_as_service: bool = False


HEALTHZ_PORT, METRICS_PORT = 10_256, 10_249


def complete(said: KubeProxyConfiguration) -> KubeProxyConfiguration:
    """With the defaults that depend on other fields, and those of fields where zero means none."""
    v6 = ":" in said.bind_address
    return replace(
        said,
        healthz_bind_address=with_port(said.healthz_bind_address, "::" if v6 else "0.0.0.0", HEALTHZ_PORT),  # noqa: S104
        metrics_bind_address=with_port(said.metrics_bind_address, "::1" if v6 else "127.0.0.1", METRICS_PORT),
        iptables=replace(said.iptables, **_periods(said.iptables)),
        nftables=replace(said.nftables, **_periods(said.nftables)),
        config_sync_period=_or_default(said.config_sync_period, "15m0s"),
    )


def with_port(text: str | None, default_host: str, default_port: int) -> str:
    """`IP:PORT` out of an address without port, or out of nothing."""
    if text == "":
        return ""
    host = default_host if text is None else text
    bare = host.removeprefix("[").removesuffix("]")
    if bare.count(":") != 1 and "]:" not in bare:
        return f"[{bare}]:{default_port}" if ":" in bare else f"{bare}:{default_port}"
    return host


def _periods(section: Iptables | Nftables) -> dict[str, str]:
    return {
        "sync_period": _or_default(section.sync_period, "30s"),
        "min_sync_period": _or_default(section.min_sync_period, "1s"),
    }


def _or_default(duration: str, default: str) -> str:
    return default if duration.strip("0.") in ("", "s", "m", "h", "ms") else duration


WITHOUT_EFFECT = (
    "featureGates",
    "clientConnection.acceptContentTypes",
    "clientConnection.contentType",
    "clientConnection.qps",
    "clientConnection.burst",
    "logging.format",
    "logging.flushFrequency",
    "logging.vmodule",
    "enableProfiling",
    "showHiddenMetricsForVersion",
    "ipvs",
    "winkernel",
    "portRange",
    "windowsRunAsService",
)


@dataclass(frozen=True, slots=True)
class Remark:
    """What of a configuration is not done as written, and goes into the log in one line."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class Configured:
    """A configuration, and where its fields were written: how the operator will look for them."""

    content: KubeProxyConfiguration
    file: str = ""
    flags: Mapping[str, str] = dataclass_field(default_factory=dict)
    """The flag that stands for a field, where there is one."""
    remarks: tuple[Remark, ...] = ()

    def name(self, path: str) -> str:
        return f"{self.file}: {path}" if self.file else f"--{self.flags.get(path, path)}"

    def refused(self, path: str, value: object, reason: str) -> OperatorError:
        shown = printable(str(value))
        return OperatorError(f"{self.name(path)} {shown if shown.strip() else repr(shown)}: {reason}")


def read_configuration(file: str, document: object) -> Configured:
    """The configuration in a decoded YAML or JSON document. OperatorError names the file, the field and the value."""
    if not isinstance(document, dict):
        raise OperatorError(f"{file}: not an object")
    for key, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        if document.get(key) != wanted:
            raise OperatorError(f"{file}: {key} {printable(str(document.get(key)))}: want {wanted}")
    said = said_in(document)
    content = complete(_convert(file, said))
    unknown = [
        Remark(f"{file}: {printable(path)}", printable(str(value)), "there is no such field, it is passed over")
        for path, value in _unknown("", said, KubeProxyConfiguration)
    ]
    idle = [
        Remark(f"{file}: {path}", printable(str(value)), "it has no effect here")
        for path in WITHOUT_EFFECT
        if _says_something(value := _value_at(said, path))
    ]
    return Configured(content, file, remarks=(*unknown, *idle))


def configuration_from(fields: Mapping[str, Any], flags: Mapping[str, str]) -> Configured:
    """What flags amount to: texts by field, and for each field the flag that it came from."""
    document: dict[str, Any] = {}
    for path, value in fields.items():
        *sections, name = path.split(".")
        at = document
        for section in sections:
            at = at.setdefault(section, {})
        at[name] = value
    return Configured(complete(_convert("", document, flags)), flags=flags)


def said_in(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document without what says nothing: null, and empty text."""
    pruned = {key: said_in(value) if isinstance(value, dict) else value for key, value in document.items()}
    return {key: value for key, value in pruned.items() if value is not None and value != ""}


def _says_something(value: Any) -> bool:
    """Whether it differs from zero values all through: kubeadm writes those of fields that nobody set."""
    if isinstance(value, dict | list):
        return any(map(_says_something, value.values() if isinstance(value, dict) else value))
    return value not in (None, "", "0", "0s", 0, False)


def _convert(file: str, document: Mapping[str, Any], flags: Mapping[str, str] | None = None) -> KubeProxyConfiguration:
    """Flags are text whatever they mean; a file has numbers and words of its own."""
    try:
        return msgspec.convert(document, KubeProxyConfiguration, strict=flags is None)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).rpartition(" - at `$.")
        path = path.rstrip("`")
        raise Configured(KubeProxyConfiguration(), file, flags or {}).refused(
            path, _value_at(document, path), reason[:1].lower() + reason[1:]
        ) from None


def _unknown(prefix: str, document: Mapping[str, Any], shape: type[Struct]) -> Iterator[tuple[str, Any]]:
    known = {each.encode_name: each.type for each in msgspec.structs.fields(shape)}
    for key, value in document.items():
        if key not in known:
            yield f"{prefix}{key}", value
        elif isinstance(value, dict) and isinstance(known[key], type) and issubclass(known[key], Struct):
            yield from _unknown(f"{prefix}{key}.", value, known[key])


def _value_at(document: Any, path: str) -> Any:
    """The value of a field that may not be there."""
    for step in path.replace("[", ".[").split("."):
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list | tuple) and step.startswith("[") and step[1:-1].isdigit():
            document = document[int(step[1:-1])]
        else:
            return None
    return document
