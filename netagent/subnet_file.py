"""The subnet file: what CNI plugins and container engines on this node learn about the overlay.

Names and order are flannel's, whose CNI plugin reads it. It is also where a restarted agent finds its last subnet.
"""

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_interface
from pathlib import Path

from controlloop.family import Family, IPNetwork

PREFIX = {Family.V4: "FLANNEL_", Family.V6: "FLANNEL_IPV6_"}


Subnets = Mapping[Family, IPNetwork]


def render(networks: Subnets, subnets: Subnets, mtu: int, *, ip_masq: bool = False) -> str:
    """The file's text. A subnet is written as its first host: the address that the node's bridge takes.

    `ip_masq`: the agent masquerades, so that the bridge need not.
    """
    lines = []
    for family in (family for family in Family if family in subnets):
        subnet = subnets[family]
        lines.append(f"{PREFIX[family]}NETWORK={networks[family]}")
        lines.append(f"{PREFIX[family]}SUBNET={subnet.network_address + 1}/{subnet.prefixlen}")
    return "\n".join([*lines, f"FLANNEL_MTU={mtu}", f"FLANNEL_IPMASQ={str(ip_masq).lower()}", ""])


def parse_subnets(text: str) -> dict[Family, IPNetwork]:
    """The subnets that a subnet file names; what cannot be read is as good as missing."""
    pairs = (line.partition("=") for line in text.splitlines())
    values = {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}
    found: dict[Family, IPNetwork] = {}
    for family, prefix in PREFIX.items():
        with suppress(ValueError):
            subnet = ip_interface(values.get(f"{prefix}SUBNET", "")).network
            if Family.of(subnet) is family:
                found[family] = subnet
    return found


def read(path: Path) -> str:
    """Empty when there is none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def read_subnets(path: Path) -> dict[Family, IPNetwork] | None:
    """The previous subnets, None without any."""
    return parse_subnets(read(path)) or None


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace the file in one step: a reader sees the old one or the new one, whole."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as fresh:
        try:
            fresh.write(text)
            fresh.flush()
            Path(fresh.name).chmod(mode)
            Path(fresh.name).replace(path)
        except OSError:
            Path(fresh.name).unlink(missing_ok=True)
            raise


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)
