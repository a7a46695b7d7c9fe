"""Where the API server is, how its certificate is checked, and who we are to it."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from controlloop.errors import OperatorError, UnavailableError
from controlloop.kubernetes.connection import Connection, Server
from controlloop.kubernetes.credentials import Content, Credentials, Identity, read

PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Access:
    server: Server
    credentials: Credentials
    ca: Content | None = None
    """None: what the system trusts."""
    verify: bool = True
    tls_name: str = ""
    """Name that the server's certificate must hold; empty: the host's."""

    async def connect(self, timeout_s: float) -> Connection:
        identity = await self.credentials.identity()
        if not (identity.token.isascii() and identity.token.isprintable()):
            raise UnavailableError(f"{self.server}: the token holds what no token may hold")
        if not self.server.tls and identity.token and not is_loopback(self.server.host):
            raise OperatorError(f"{self.server}: a token is not sent over http; use https")
        tls = self._tls(identity) if self.server.tls else None
        headers = [("Authorization", f"Bearer {identity.token}")] if identity.token else []
        return await Connection.open(self.server, tls, self.tls_name, headers, timeout_s)

    def _tls(self, identity: Identity) -> ssl.SSLContext:
        try:
            # What the system trusts is looked at only where nothing else is said: it takes longer than the handshake.
            trusted = None if self.ca is None else read(self.ca).decode("ascii", errors="replace")
            context = ssl.create_default_context(cadata=trusted)
            if not self.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if identity.certificate:
                with in_memory(identity.certificate + b"\n" + identity.key) as path:
                    # Without a password of ours OpenSSL asks on the terminal for that of an encrypted key.
                    context.load_cert_chain(path, password="")
        except (ssl.SSLError, ValueError) as error:
            raise UnavailableError(f"{self.server}: certificate, key or CA cannot be used: {error}") from error
        return context


def parse_server(flag: str, url: str) -> Server:
    """`https://HOST[:PORT]`. OperatorError names the flag, or the file and key, that says otherwise."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or PORTS.get(parts.scheme)
        (host or "").encode("idna")  # what the resolver would stumble over
    except ValueError as error:
        raise OperatorError(f"{flag} {url}: {error}") from error
    if not host or port is None or parts.path not in ("", "/") or parts.query or parts.username:
        raise OperatorError(f"{flag} {url}: want https://HOST:PORT")
    return Server(host, port, tls=parts.scheme == "https")


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def in_memory(content: bytes) -> Iterator[str]:
    """A path under which the content can be read once: OpenSSL takes keys from files, and no disk shall see ours."""
    descriptor = os.memfd_create("nodenet")
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
