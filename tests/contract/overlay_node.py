"""A node without daemons, whose overlay a test makes: what it should be, and the kernels it may be in."""

import subprocess
from ipaddress import ip_address, ip_network

from controlloop.family import Family
from netagent.backends.backend import Node
from netagent.backends.vxlan import Vxlan, backend_data
from netagent.desired import grounds, own_state, peer_state
from netagent.state import Underlay
from subnet_alloc.model import Lease, LeaseAttrs

UNDERLAY = {
    Family.V4: Underlay("under0", 1500, ip_address("192.0.2.1"), frozenset({ip_network("192.0.2.0/24")})),
    Family.V6: Underlay("under0", 1500, ip_address("2001:db8::1"), frozenset({ip_network("2001:db8::/64")})),
}


def sh(*commands):
    for command in commands:
        subprocess.run(command.split(), check=True, capture_output=True, text=True)


def output(command):
    return subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout


class MemoryKernel:
    """The contract without a kernel."""

    def __init__(self):
        self.objects = {}

    async def dump(self):
        return dict(self.objects)

    async def apply(self, delta):
        delta.apply_to(self.objects)

    def close(self):
        pass


def overlay_kernel():
    # pyroute2 loads slowly, and not at all where the module is skipped.
    from netagent.kernel import OverlayKernel  # noqa: PLC0415

    return OverlayKernel()


def node(*families, backend=Vxlan(), **more):  # noqa: B008 - frozen
    underlay = {family: UNDERLAY[family] for family in families or [Family.V4]}
    return Node("node-a", backend, underlay, {family: each.address for family, each in underlay.items()}, **more)


SUBNET = {Family.V4: "10.5.{}.0/24", Family.V6: "fd00:5:{}::/64"}
PUBLIC_IP = {Family.V4: "192.0.2.{}", Family.V6: "2001:db8::{}"}


def lease(number, families, mac=None):
    families = families or [Family.V4]
    attrs = LeaseAttrs(
        {family: ip_address(PUBLIC_IP[family].format(number)) for family in families},
        "vxlan",
        {family: backend_data(1, mac or f"02:00:00:00:00:{number:02x}") for family in families},
    )
    return Lease({family: ip_network(SUBNET[family].format(number)) for family in families}, attrs)


def overlay(*families, backend=Vxlan(), peers=range(2, 5), **more):  # noqa: B008 - frozen
    """What a node with these peers desires."""
    here, own = node(*families, backend=backend, **more), lease(1, families)
    state = dict(own_state(here, own))
    for number in peers:
        state |= peer_state("peer", lease(number, families), here, grounds(here, own))
    return state
