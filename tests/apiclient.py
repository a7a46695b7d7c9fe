"""Clients of `apiserver`, and what the tests of them share: structs, lease attributes and annotations."""

import asyncio
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address

import msgspec
from deadline import PATIENCE_S

from controlloop.family import Family
from controlloop.kubernetes.access import Access
from controlloop.kubernetes.client import ApiClient
from controlloop.kubernetes.connection import Server
from controlloop.kubernetes.credentials import Stored
from subnet_alloc.codec import parse_config
from subnet_alloc.leasing import LeaseLostError
from subnet_alloc.model import LeaseAttrs

P = "flannel.alpha.coreos.com/"
V4 = parse_config(b'{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}')
DUAL = parse_config(
    b'{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/48","Backend":{"Type":"vxlan"}}'
)
MAC = "82:4b:b6:2f:54:4e"


def attrs(number=1, mac=MAC, *, v6=False):
    public_ip = {Family.V4: ip_address(f"192.168.0.{number}")}
    data = {Family.V4: {"VNI": 1, "VtepMAC": mac}}
    if v6:
        public_ip[Family.V6] = ip_address(f"fd00::{number}")
        data[Family.V6] = {"VNI": 1, "VtepMAC": mac}
    return LeaseAttrs(public_ip, "vxlan", data)


def annotations(number=1, mac=MAC, **more):
    return {
        f"{P}kube-subnet-manager": "true",
        f"{P}backend-type": "vxlan",
        f"{P}backend-data": f'{{"VNI":1,"VtepMAC":"{mac}"}}',
        f"{P}public-ip": f"192.168.0.{number}",
        **more,
    }


class Meta(msgspec.Struct):
    annotations: dict[str, str] = {}


class Annotated(msgspec.Struct):
    metadata: Meta


def client_of(server, credentials=None, **options):
    access = Access(Server("127.0.0.1", server.port, tls=False), credentials or Stored())
    return ApiClient(access, **{"timeout_s": 20.0, "page": 3, **options})


@asynccontextmanager
async def keeping(lessor, own, server):
    """A lessor that keeps its lease, and watches by now."""
    before = len(server.requests("watch"))
    task = asyncio.ensure_future(lessor.keep(own))
    try:
        async with asyncio.timeout(PATIENCE_S):
            await server.asked("watch", before + 1)
            yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, LeaseLostError):
            await task
