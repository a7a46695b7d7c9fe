"""What netagent was told, checked. Pure; every error names the flag and the value. Names and defaults are flannel's."""

from dataclasses import dataclass
from ipaddress import ip_address

from controlloop.errors import OperatorError
from controlloop.family import Family, IPAddress

ETCD_ENDPOINTS = "http://127.0.0.1:4001,http://127.0.0.1:2379"
ETCD_PREFIX = "/coreos.com/network"
SUBNET_FILE = "/run/flannel/subnet.env"


@dataclass(frozen=True, slots=True)
class Settings:
    node_name: str
    etcd_endpoints: tuple[str, ...]
    etcd_prefix: str
    iface: str
    """Name or local address of the underlay interface; empty: the one of the default route."""
    public_ip: IPAddress | None
    subnet_file: str

    @property
    def config_key(self) -> str:
        return f"{self.etcd_prefix.rstrip('/')}/config"


def split_endpoints(text: str) -> tuple[str, ...]:
    endpoints = tuple(part.strip() for part in text.split(",") if part.strip())
    if not endpoints:
        raise OperatorError(f'--etcd-endpoints "{text}": name at least one')
    return endpoints


def parse_public_ip(text: str) -> IPAddress | None:
    if not text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        address = None
    if address is None or Family.of(address) is not Family.V4 or address.is_unspecified or address.is_multicast:
        raise OperatorError(f"--public-ip {text}: not an IPv4 address that peers can send to")
    return address


def parse_subnet_file(text: str) -> str:
    if not text or text.endswith("/"):
        raise OperatorError(f'--subnet-file "{text}": not a file')
    return text


def parse_node_name(text: str) -> str:
    if not text.strip():
        raise OperatorError(f'--node-name "{text}": a node needs a name')
    return text.strip()
