"""The words of a command line that say which packet: `10.244.1.2 default/web:http`, `- [fd00::1]:80/udp`. Pure."""

import re
from dataclasses import dataclass
from ipaddress import ip_address

from controlloop.errors import OperatorError
from controlloop.family import IPAddress
from proxy.frontends import Protocol

THIS_NODE = ("-", "node")
PROTOCOLS = tuple(protocol.value for protocol in Protocol)
ADDRESS = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[^:/\[\]]+)):(?P<port>[^:/]+)(?:/(?P<protocol>[^/]+))?")
SERVICE = re.compile(r"(?P<name>[^/:]+/[^/:]+)(?::(?P<port>[^/:]+))?(?:/(?P<protocol>[^/]+))?")


@dataclass(frozen=True, slots=True)
class Target:
    """An address and port, or a Service, of which `port` may be name or number."""

    address: IPAddress | None
    service: str
    port: str
    protocol: str
    """Empty: not said."""


def read_target(text: str) -> Target:
    """OperatorError that names what is wrong."""
    found = ADDRESS.fullmatch(text)
    host = (found["v6"] or found["v4"]) if found else ""
    if found and (found["v6"] is not None or _is_address(host)):
        return Target(_address(host, text), "", str(_port(found["port"], text)), _protocol(found["protocol"], text))
    if named := SERVICE.fullmatch(text):
        return Target(None, named["name"], named["port"] or "", _protocol(named["protocol"], text))
    raise OperatorError(
        f"explain: {text!r} is no destination; want ADDRESS:PORT, [IPV6]:PORT or NAMESPACE/SERVICE:PORT"
    )


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _address(host: str, text: str) -> IPAddress:
    try:
        return ip_address(host)
    except ValueError:
        raise OperatorError(f"explain: {text!r}: {host!r} is no address") from None


def _port(port: str, text: str) -> int:
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise OperatorError(f"explain: {text!r}: {port!r} is no port, which are 1 to 65535")
    return int(port)


def _protocol(protocol: str | None, text: str) -> str:
    if protocol is not None and protocol not in PROTOCOLS:
        raise OperatorError(f"explain: {text!r}: {protocol!r} is no protocol; want {', '.join(PROTOCOLS)}")
    return protocol or ""
