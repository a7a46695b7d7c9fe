"""One etcd server: its URL, and the channel to it."""

from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import grpc
from aetcd import rpc

from controlloop.errors import OperatorError
from controlloop.etcd_access import Tls

DEFAULT_PORT = 2379

CHANNEL_OPTIONS = (
    # A server that vanished without a word is noticed within 15 s; etcd allows a ping each 5 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # A ping that gRPC sent to measure bandwidth stands in for a keepalive, and would be waited for a whole minute.
    ("grpc.http2.ping_timeout_ms", 5_000),
    # gRPC gives up pinging after two pings on a quiet stream, and a watch is quiet.
    ("grpc.http2.max_pings_without_data", 0),
    # The default of 4 MB is less than one watch answer may hold (1,000 revisions).
    ("grpc.max_receive_message_length", -1),
    # A server that comes back is found within a second; left alone, gRPC waits up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # A channel opened anew would share the connection of the one it replaces.
    ("grpc.use_local_subchannel_pool", 1),
    # Proxy settings of the environment are meant for the world outside the cluster.
    ("grpc.enable_http_proxy", 0),
    # gRPC would ask DNS for a TXT record with settings of its own.
    ("grpc.service_config_disable_resolution", 1),
)


class Endpoint:
    """One server, and the stubs to call it. aetcd and generated gRPC code carry no types, hence `Any`."""

    def __init__(self, url: str, tls: Tls) -> None:
        self.url = url
        self.target, self._is_secure = parse_endpoint(url)
        self._tls = tls
        self._generation = 0
        self._retired: list[Any] = []

    # A channel belongs to the loop it was opened in: the first call opens it, the constructor has no loop yet.
    @cached_property
    def channel(self) -> Any:
        self._generation = self._tls.generation
        if self._is_secure:
            return grpc.aio.secure_channel(self.target, self._tls.credentials, options=CHANNEL_OPTIONS)
        return grpc.aio.insecure_channel(self.target, options=CHANNEL_OPTIONS)

    @cached_property
    def auth(self) -> Any:
        return rpc.AuthStub(self.channel)

    @cached_property
    def kv(self) -> Any:
        return rpc.KVStub(self.channel)

    @cached_property
    def lease(self) -> Any:
        return rpc.LeaseStub(self.channel)

    @cached_property
    def watch(self) -> Any:
        return rpc.WatchStub(self.channel)

    def take_renewed_certificates(self) -> None:
        """The next call opens a new channel if the files changed; streams on the old one end by themselves."""
        if not self._is_secure or "channel" not in self.__dict__:
            return
        self._tls.refresh()
        if self._generation != self._tls.generation:
            self._retire()

    async def close(self) -> None:
        """End all calls; the next one opens a new channel."""
        if "channel" in self.__dict__:
            self._retire()
        while self._retired:
            await self._retired.pop().close()

    def _retire(self) -> None:
        self._retired.append(self.channel)
        for name in ("channel", "auth", "kv", "lease", "watch"):
            self.__dict__.pop(name, None)


def parse_endpoint(url: str) -> tuple[str, bool]:
    """The gRPC target of a client URL such as `http://127.0.0.1:2379`, and whether it speaks TLS.

    OperatorError names a bad one.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError as error:
        raise OperatorError(f"--etcd-endpoints {url}: {error}") from error
    known = parts.scheme in {"http", "https"}
    if not known or not host or parts.path not in ("", "/") or parts.query or parts.username:
        raise OperatorError(f"--etcd-endpoints {url}: want http://HOST:PORT or https://HOST:PORT")
    target = f"dns:///[{host}]:{port}" if ":" in host else f"dns:///{host}:{port}"
    return target, parts.scheme == "https"
