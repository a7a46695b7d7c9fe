"""Who and where this node is: what the flags and the network configuration mean on this machine."""

from controlloop.errors import OperatorError
from netagent.backends.backend import Backend, Node
from netagent.backends.choice import parse_backend
from netagent.backends.wg_key import with_key
from netagent.backends.wireguard import Wireguard
from netagent.config import Settings
from netagent.interface import find_underlay
from subnet_alloc.model import NetworkConfig


async def survey(settings: Settings, config: NetworkConfig) -> Node:
    """OperatorError names the flag or key that leads nowhere."""
    backend = backend_of(settings.config_key, config)
    if isinstance(backend, Wireguard):
        backend = await with_key(backend)
    underlay = await find_underlay(settings.interface, tuple(config.ranges))
    advertised = settings.interface.public_ip
    public_ip = {family: advertised.get(family, found.address) for family, found in underlay.items()}
    networks = {family: ranges.network for family, ranges in config.ranges.items()}
    node = Node(
        settings.node_name,
        backend,
        underlay,
        public_ip,
        networks,
        settings.service_cidrs,
        settings.instance,
        settings.blackhole,
    )
    try:
        backend.check(node)
    except OperatorError as error:
        raise OperatorError(f"{settings.config_key}: {error}") from error
    return node


def backend_of(key: str, config: NetworkConfig) -> Backend:
    try:
        return parse_backend(config.backend_type, config.backend_options)
    except OperatorError as error:
        raise OperatorError(f"{key}: {error}") from error
