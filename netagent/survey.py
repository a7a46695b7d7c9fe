"""Who and where this node is: what the flags and the network configuration mean on this machine."""

from controlloop.errors import OperatorError
from controlloop.family import Family, IPAddress
from netagent.config import Settings
from netagent.desired import Node, pod_mtu
from netagent.interface import find_underlay
from netagent.vxlan import VxlanOptions, parse_options
from subnet_alloc.model import NetworkConfig


async def survey(settings: Settings, config: NetworkConfig) -> Node:
    """OperatorError names the flag or key that leads nowhere."""
    options = backend_options(settings.config_key, config)
    # The flag is about IPv4; the address that peers send IPv6 to is that of the interface.
    wanted: dict[Family, IPAddress] = {Family.V4: settings.public_ip} if settings.public_ip else {}
    underlay = {family: await find_underlay(family, settings.iface, wanted.get(family)) for family in config.ranges}
    public_ip = {family: wanted.get(family, found.address) for family, found in underlay.items()}
    node = Node(settings.node_name, options, underlay, public_ip)
    try:
        pod_mtu(node)
    except OperatorError as error:
        raise OperatorError(f"{settings.config_key}: {error}") from error
    return node


def backend_options(key: str, config: NetworkConfig) -> VxlanOptions:
    try:
        return parse_options(config.backend_type, config.backend_options)
    except OperatorError as error:
        raise OperatorError(f"{key}: {error}") from error
