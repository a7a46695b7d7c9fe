"""Which backend a network configuration asks for. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from controlloop.errors import OperatorError
from netagent.backends.alloc import Alloc
from netagent.backends.backend import Backend
from netagent.backends.host_gw import HostGw
from netagent.backends.ipip import parse_ipip
from netagent.backends.vxlan import parse_vxlan
from netagent.backends.wireguard import parse_wireguard

PARSERS: Mapping[str, Callable[[Mapping[str, Any]], Backend]] = {
    "vxlan": parse_vxlan,
    "wireguard": parse_wireguard,
    "ipip": parse_ipip,
    "host-gw": lambda _options: HostGw(),
    "alloc": lambda _options: Alloc(),
}

REFUSED = {
    "udp": "it copies each packet through a program; use vxlan",
    "ipsec": "it needs a strongSwan of its own; use wireguard",
    "tencent-vpc": "it writes the routes of one cloud; use vxlan, or alloc beside the cloud's own route controller",
    # CVE-2026-32241: whoever writes the configuration runs commands as root on every node.
    "extension": "it runs commands out of the configuration as root; use vxlan, or alloc with a program of your own",
}


def parse_backend(backend_type: str, options: Mapping[str, Any]) -> Backend:
    """The Backend object of a network configuration. OperatorError names the option and its value."""
    parse = PARSERS.get(backend_type.lower())
    if parse is None:
        reason = REFUSED.get(backend_type.lower(), f"not a backend of netagent; use one of {', '.join(PARSERS)}")
        raise OperatorError(f'Backend.Type "{backend_type}": {reason}')
    return parse(options)
