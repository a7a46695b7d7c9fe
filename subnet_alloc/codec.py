"""Keys, network configuration and lease values: their bytes and text in etcd <-> the model.

Pure. What is read follows flannel, which is a Go program: a JSON name matches in any case, of duplicates the last one
counts, unknown names are ignored, a number is a JSON number and never a string, nothing may follow the document.
What is written is byte for byte what flannel writes, so that both can live on one overlay.
"""

import json
import re
import sys
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from controlloop.errors import OperatorError
from controlloop.family import Family, IPAddress, IPNetwork
from subnet_alloc.model import Lease, LeaseAttrs, NetworkConfig, SubnetRange

FIELD_PREFIX = {Family.V4: "", Family.V6: "IPv6"}
ENABLE = {Family.V4: "EnableIPv4", Family.V6: "EnableIPv6"}
USUAL_SUBNET_LEN = {Family.V4: 24, Family.V6: 64}
PUBLIC_IP = {Family.V4: "PublicIP", Family.V6: "PublicIPv6"}
BACKEND_DATA = {Family.V4: "BackendData", Family.V6: "BackendV6Data"}

BACKEND_WHEN_MISSING = "udp"
NO_PUBLIC_IP = "0.0.0.0"  # noqa: S104 - a value on the wire, nothing is bound to it
NO_V4_SUBNET = "0.0.0.0-0"
"""flannel's parser wants an IPv4 part in each key; this is the one it writes for a node without IPv4."""

KEY = re.compile(r"([0-9.]+)-([0-9]+)(?:&([0-9a-f:]+)-([0-9]+))?")
CIDR = re.compile(r"[^/%]+/[0-9]{1,3}")

# Go escapes these in every JSON text it writes. All of them can only stand inside strings.
GO_ESCAPES = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})

MAX_DEPTH = 32
SHOWN = 60


class MalformedError(ValueError):
    """Bytes that do not say what they should. One line that names the field and its value."""


class ConfigError(OperatorError):
    """The network configuration in the registry cannot be used. One line that names the key and its value."""


def parse_config(raw: bytes) -> NetworkConfig:
    """What `<prefix>/config` says, checked and with defaults filled in. ConfigError names what is wrong."""
    try:
        return _config(_fields(_decode(raw)))
    except MalformedError as error:
        raise ConfigError(f"network config: {error}") from error


def option(options: Mapping[str, Any], name: str) -> Any:
    """A backend option by its name in any case, as Go finds it; None when absent or null."""
    folded = name.casefold()
    found = [value for key, value in options.items() if key.casefold() == folded and value is not None]
    return found[-1] if found else None


def parse_key(text: str) -> dict[Family, IPNetwork]:
    """The subnets that a lease key names: `10.5.34.0-24`, or `10.5.34.0-24&fc00:5:22::-64` with both families.

    MalformedError unless `render_key` would write exactly this text. flannel's parser lets pass text before the
    address and bits after the prefix (10.5.1.5-24). No flannel writes such keys, and whoever accepted them would have
    several keys for one subnet, each created without a conflict.
    """
    match = KEY.fullmatch(text)
    if match is None:
        raise MalformedError("the key is not SUBNET-LENGTH")
    v4, v4_len, v6, v6_len = match.groups()
    subnets = {} if v6 and text.startswith(f"{NO_V4_SUBNET}&") else {Family.V4: _subnet(v4, v4_len)}
    if v6:
        subnets[Family.V6] = _subnet(v6, v6_len)
    if render_key(subnets) != text:
        raise MalformedError("the key is not in the form that flannel writes")
    return subnets


def render_key(subnets: Mapping[Family, IPNetwork]) -> str:
    parts = [f"{subnet.network_address}-{subnet.prefixlen}" for subnet in _ordered(subnets)]
    return "&".join(parts if Family.V4 in subnets else [NO_V4_SUBNET, *parts])


def parse_lease(key: str, value: bytes) -> Lease:
    """One record. MalformedError says why it is none.

    A family without public IP or backend data is absent from those mappings: whether that is enough to reach the
    node is the backend's question.
    """
    return Lease(parse_key(key), parse_attrs(value))


def parse_attrs(value: bytes) -> LeaseAttrs:
    """What a record says under its key; MalformedError as `parse_lease`."""
    return _attrs(_fields(_decode(value)))


def render_attrs(attrs: LeaseAttrs) -> bytes:
    """The value of a lease, in flannel's field order and without spaces."""
    v6 = attrs.public_ip.get(Family.V6)
    fields: dict[str, Any] = {
        PUBLIC_IP[Family.V4]: str(attrs.public_ip.get(Family.V4, NO_PUBLIC_IP)),
        PUBLIC_IP[Family.V6]: None if v6 is None else str(v6),
    }
    if attrs.backend_type:
        fields["BackendType"] = attrs.backend_type
    for family, name in BACKEND_DATA.items():
        if family in attrs.backend_data:
            fields[name] = attrs.backend_data[family]
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).translate(GO_ESCAPES).encode()


def _config(fields: Mapping[str, Any]) -> NetworkConfig:
    enabled = [family for family in Family if _flag(fields, ENABLE[family], default=family is Family.V4)]
    if not enabled:
        raise MalformedError("EnableIPv4 false, EnableIPv6 false: no IP family is left")
    backend_type, options = _backend(fields)
    return NetworkConfig(
        ranges={family: _range(fields, family) for family in enabled},
        backend_type=backend_type,
        backend_options=options,
        enable_nftables=_flag(fields, "EnableNFTables", default=False),
    )


def _backend(fields: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if "backend" not in fields:
        return BACKEND_WHEN_MISSING, {}
    backend = fields["backend"] if fields["backend"] is not None else {}
    if not isinstance(backend, dict):
        raise MalformedError(f"Backend {_shown(backend)} is not an object")
    options = {name: value for name, value in backend.items() if name.casefold() != "type"}
    return _text(_fields(backend), "Type").lower(), options


def _range(fields: Mapping[str, Any], family: Family) -> SubnetRange:
    prefix = FIELD_PREFIX[family]
    network = _network(fields, f"{prefix}Network", family)
    subnet_len = _subnet_len(fields, f"{prefix}SubnetLen", network)
    size = 1 << (family.bits - subnet_len)
    # The first subnet is left out unless asked for: its network address looks like the network's own.
    lowest = _boundary(fields, f"{prefix}SubnetMin", network, size) or network.network_address + size
    highest = _boundary(fields, f"{prefix}SubnetMax", network, size) or network.broadcast_address - (size - 1)
    if int(lowest) > int(highest):
        raise MalformedError(f"{prefix}SubnetMin {lowest} is above {prefix}SubnetMax {highest}")
    return SubnetRange(network, subnet_len, lowest, highest)


def _network(fields: Mapping[str, Any], name: str, family: Family) -> IPNetwork:
    text = _text(fields, name)
    if not text:
        raise MalformedError(f"{name} is missing")
    try:
        network = ip_network(text, strict=False) if CIDR.fullmatch(text) else None
    except ValueError:
        network = None
    if network is None or Family.of(network) is not family:
        raise MalformedError(f"{name} {_shown(text)} is not an IPv{family.value} network such as ADDRESS/LENGTH")
    return network


def _subnet_len(fields: Mapping[str, Any], name: str, network: IPNetwork) -> int:
    """At least four subnets fit into a network, and at least four addresses into a subnet (flannel)."""
    family = Family.of(network)
    least, most, usual = network.prefixlen + 2, family.bits - 2, USUAL_SUBNET_LEN[family]
    if least > most:
        raise MalformedError(f"{FIELD_PREFIX[family]}Network {network} is too small: /{most - 2} at the most")
    length = _unsigned(fields, name)
    if not length:
        return max(usual, least)
    if not least <= length <= most:
        raise MalformedError(f"{name} {length} is not within {least} and {most} in {network}")
    return length


def _boundary(fields: Mapping[str, Any], name: str, network: IPNetwork, size: int) -> IPAddress | None:
    value = fields.get(name.casefold())
    if value is None:
        return None
    address = _address(name, value, Family.of(network))
    if address.is_unspecified:
        return None
    if address not in network:
        raise MalformedError(f"{name} {address} is outside {network}")
    if int(address) % size:
        raise MalformedError(f"{name} {address} is not where a subnet begins")
    return address


def _attrs(fields: Mapping[str, Any]) -> LeaseAttrs:
    public_ip: dict[Family, IPAddress] = {}
    v4 = _address("PublicIP", fields.get("publicip", NO_PUBLIC_IP), Family.V4)
    if not v4.is_unspecified:
        public_ip[Family.V4] = v4
    if fields.get("publicipv6") is not None:
        public_ip[Family.V6] = _address("PublicIPv6", fields["publicipv6"], Family.V6)
    found = {family: fields.get(name.casefold()) for family, name in BACKEND_DATA.items()}
    backend_data = {family: value for family, value in found.items() if value is not None}
    return LeaseAttrs(public_ip, sys.intern(_text(fields, "BackendType")), backend_data)


def _address(name: str, value: Any, family: Family) -> IPAddress:
    try:
        address = ip_address(value) if isinstance(value, str) and "%" not in value else None
    except ValueError:
        address = None
    if address is None or Family.of(address) is not family:
        raise MalformedError(f"{name} {_shown(value)} is not an IPv{family.value} address")
    return address


def _subnet(address: str, length: str) -> IPNetwork:
    try:
        subnet = ip_network(f"{address}/{length}")
    except ValueError as error:
        raise MalformedError(f"the key names no subnet: {error}") from error
    if not 0 < subnet.prefixlen < subnet.max_prefixlen:
        raise MalformedError(f"{subnet} is no subnet for a node")
    return subnet


def _ordered(subnets: Mapping[Family, IPNetwork]) -> list[IPNetwork]:
    return [subnets[family] for family in Family if family in subnets]


def _flag(fields: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = fields.get(name.casefold())
    if value is None:
        return default
    if not isinstance(value, bool):
        raise MalformedError(f"{name} {_shown(value)} is neither true nor false")
    return value


def _unsigned(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name.casefold(), 0)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise MalformedError(f"{name} {_shown(value)} is not a whole number")
    return value


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name.casefold())
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedError(f"{name} {_shown(value)} is not a string")
    return value


def _fields(document: Any) -> dict[str, Any]:
    """The fields of an object by their names in lower case; of duplicates the last."""
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise MalformedError(f"{_shown(document)} is not a JSON object")
    return {name.casefold(): value for name, value in document.items()}


def _decode(raw: bytes) -> Any:
    try:
        document = DECODER.decode(raw.decode(errors="replace"))
        # A lone surrogate passes Python's decoder and breaks whoever writes the text anywhere.
        if b"\\u" in raw:
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"{_shown(raw.decode(errors='replace'))} is not JSON: {error}") from error
    # Python compares and prints by recursion: what nests without end must not get further than this.
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and not _is_flat(document, MAX_DEPTH):
        raise MalformedError(f"the JSON nests deeper than {MAX_DEPTH} levels")
    return document


def _is_flat(value: Any, levels: int) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_flat(child, levels - 1) for child in children)


def _last_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Thousands of leases have the same few names.
    fields = {sys.intern(name): value for name, value in pairs}
    if len(fields) == len(pairs):
        return fields
    # Between names that differ in case only the last one counts: a duplicate moves its name to the end.
    for name, value in pairs:
        del fields[name]
        fields[name] = value
    return fields


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


DECODER = json.JSONDecoder(object_pairs_hook=_last_of_each, parse_constant=_refuse_constant)


def _shown(value: Any) -> str:
    text = json.dumps(value[: SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
