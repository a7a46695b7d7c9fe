"""On which node we are, from our own Pod: how flanneld finds out, and how its DaemonSet starts us."""

import asyncio

import msgspec

from controlloop.errors import UnavailableError
from controlloop.kubernetes.client import ApiClient
from controlloop.kubernetes.resources import PODS
from controlloop.logs import Log
from controlloop.runner import Backoff

log = Log("netagent")


class _Spec(msgspec.Struct, rename="camel"):
    node_name: str = ""


class _Pod(msgspec.Struct):
    spec: _Spec


async def node_of(pod: str, client: ApiClient) -> str:
    """`pod` as namespace/name. Waits until the API server tells."""
    namespace, _, name = pod.partition("/")
    backoff = Backoff()
    while True:
        try:
            found = (await client.get(PODS.within(namespace), name, _Pod)).content.spec.node_name
            if found:
                return found
            reason = "it has no node yet"
        except UnavailableError as error:
            reason = str(error)
        wait_s = backoff.next()
        log.warning("own node not known; NODE_NAME would name it", pod=pod, reason=reason, retry_in_s=round(wait_s, 1))
        await asyncio.sleep(wait_s)
