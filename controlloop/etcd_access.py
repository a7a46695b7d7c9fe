"""How to be let in by etcd: certificates from files that may be renewed, and a user with a password.

A channel keeps the certificate it was opened with, and a connection lives long; so the files are looked at again when
an endpoint fails, which is when a certificate that ran out would show.
"""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from aetcd import rpc

from controlloop.errors import OperatorError
from controlloop.logs import Log

log = Log("etcd")

Metadata = tuple[tuple[str, str], ...]

# Where Go's crypto/x509 looks on Debian, Fedora and Alpine; gRPC would take a list that it brings along.
SYSTEM_CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")

# Only a new login mends these; a request that they refuse was not carried out.
LOGIN_AGAIN = ("invalid auth token", "revision of auth store is old", "revision in header is old", "user name is empty")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. Without a CA the system's list counts; certificate and key come together or not at all."""

    ca: str = ""
    certificate: str = ""
    key: str = ""

    @property
    def named(self) -> Sequence[tuple[str, str]]:
        """(flag, path) of those that are given."""
        all_three = (("--etcd-cafile", self.ca), ("--etcd-certfile", self.certificate), ("--etcd-keyfile", self.key))
        return [(flag, path) for flag, path in all_three if path]


class Tls:
    """The credentials of channels; `generation` counts how often they changed."""

    def __init__(self, files: TlsFiles) -> None:
        """OperatorError names the flag of a file that is missing or cannot be understood."""
        self._files = files
        self._stamp = stamp(files)
        self.credentials = load(files)
        self.generation = 0

    def refresh(self) -> None:
        """Read the files again if they changed. Files that do not fit each other, half renewed, are left for later."""
        now = stamp(self._files)
        if now == self._stamp:
            return
        try:
            self.credentials = load(self._files)
        except OperatorError as error:
            log.warning("renewed certificate files cannot be used yet", error=error)
            return
        self._stamp = now
        self.generation += 1
        log.info("certificate files read again", files=" ".join(path for _, path in self._files.named))


def stamp(files: TlsFiles) -> list[tuple[int, int, int]]:
    """Differs when a file was replaced or written."""
    found = []
    for _, path in files.named:
        try:
            stat = Path(path).stat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return found


def load(files: TlsFiles) -> Any:
    """What gRPC takes; OperatorError as `Tls`."""
    content = {flag: read(flag, path) for flag, path in files.named}
    check(files)
    return grpc.ssl_channel_credentials(
        root_certificates=content.get("--etcd-cafile") or system_certificates(),
        private_key=content.get("--etcd-keyfile"),
        certificate_chain=content.get("--etcd-certfile"),
    )


def read(flag: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise OperatorError(f"{flag} {path}: {error.strerror}") from None


def check(files: TlsFiles) -> None:
    """By OpenSSL: gRPC takes any bytes, and fails at the first call without saying why."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if files.ca:
            context.load_verify_locations(files.ca)
    except ssl.SSLError as error:
        raise OperatorError(f"--etcd-cafile {files.ca}: no PEM certificate ({error.reason})") from None
    try:
        if files.certificate:
            # An encrypted key must not stop to ask for its password.
            context.load_cert_chain(files.certificate, files.key or None, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        files_text = f"--etcd-certfile {files.certificate}, --etcd-keyfile {files.key}"
        raise OperatorError(f"{files_text}: not a PEM certificate and its key ({reason})") from None


def system_certificates() -> bytes | None:
    return next((Path(path).read_bytes() for path in SYSTEM_CERTIFICATES if Path(path).is_file()), None)


@dataclass(slots=True)
class Login:
    """A user of etcd. A token is asked for when one is needed: etcd forgets it after some minutes, or at a restart."""

    username: str
    password: str = field(repr=False)
    _metadata: Metadata | None = field(default=None, init=False, repr=False)

    async def metadata(self, auth: Any, timeout_s: float) -> Metadata:
        """What each call carries; empty for a server that does not know users."""
        if self._metadata is None:
            self._metadata = await self._authenticate(auth, timeout_s)
        return self._metadata

    async def _authenticate(self, auth: Any, timeout_s: float) -> Metadata:
        request = rpc.AuthenticateRequest(name=self.username, password=self.password)
        try:
            return (("token", (await auth.Authenticate(request, timeout=timeout_s)).token),)
        except grpc.aio.AioRpcError as error:
            if "authentication is not enabled" in (error.details() or ""):
                return ()
            raise

    def is_renewed_after(self, error: Any, used: Metadata) -> bool:
        """Whether the call is worth another try, with another token."""
        if not any(text in (error.details() or "") for text in LOGIN_AGAIN):
            return False
        if self._metadata == used:
            self._metadata = None
        return True
