"""Who we are to the API server: a token, a file with a token, a client certificate, or what a plugin says.

Each connection asks anew, so that what was rotated on disk is in use with the next request.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import msgspec

from controlloop.command import CommandError, run
from controlloop.errors import UnavailableError

EXEC_API = "client.authentication.k8s.io/v1"
EXEC_TIMEOUT_S = 60.0
EXEC_MARGIN = timedelta(seconds=10)
"""A token that is about to end may be refused by a server whose clock is ahead."""

Content = bytes | Path
"""Either what it is, or the file that holds it."""


@dataclass(frozen=True, slots=True)
class Identity:
    token: str = field(default="", repr=False)
    certificate: bytes = b""
    key: bytes = field(default=b"", repr=False)
    """PEM both; a certificate without key holds its key itself."""


class Credentials(Protocol):
    async def identity(self) -> Identity:
        """UnavailableError when it cannot be had now."""
        ...

    def refused(self) -> None:
        """The server did not accept it: do not give out the same from memory."""
        ...


@dataclass(frozen=True, slots=True)
class Stored:
    """Texts and files, read each time."""

    token: Content = b""
    certificate: Content = b""
    key: Content = b""

    async def identity(self) -> Identity:
        return Identity(read(self.token).decode(errors="replace").strip(), read(self.certificate), read(self.key))

    def refused(self) -> None:
        """Nothing is kept in memory."""


class _ExecStatus(msgspec.Struct, rename="camel"):
    token: str = ""
    client_certificate_data: str = ""
    client_key_data: str = ""
    expiration_timestamp: datetime | None = None


class _ExecCredential(msgspec.Struct, rename="camel"):
    api_version: str
    status: _ExecStatus


class Plugin:
    """A program that prints an ExecCredential (Kubernetes: client-go credential plugins)."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], cluster: Mapping[str, Any] | None) -> None:
        """`cluster` is told to the program when the kubeconfig wants that (provideClusterInfo)."""
        self._argv = tuple(argv)
        spec: dict[str, Any] = {"interactive": False} | ({"cluster": cluster} if cluster else {})
        info = {"apiVersion": EXEC_API, "kind": "ExecCredential", "spec": spec}
        self._environment = {**environment, "KUBERNETES_EXEC_INFO": json.dumps(info)}
        self._identity: Identity | None = None
        self._ends: datetime | None = None

    async def identity(self) -> Identity:
        if self._identity is None or (self._ends and datetime.now(UTC) > self._ends - EXEC_MARGIN):
            self._identity, self._ends = await self._ask()
        return self._identity

    def refused(self) -> None:
        self._identity = None

    async def _ask(self) -> tuple[Identity, datetime | None]:
        try:
            async with asyncio.timeout(EXEC_TIMEOUT_S):
                said = await run(self._argv, environment=self._environment)
            credential = msgspec.json.decode(said, type=_ExecCredential)
        except TimeoutError as error:
            raise UnavailableError(f"credential plugin {self._argv[0]}: not done in {EXEC_TIMEOUT_S:.0f} s") from error
        except (CommandError, OSError) as error:
            raise UnavailableError(f"credential plugin: {error}") from error
        except msgspec.DecodeError as error:
            raise UnavailableError(f"credential plugin {self._argv[0]}: no ExecCredential: {error}") from error
        if credential.api_version != EXEC_API:
            raise UnavailableError(f"credential plugin {self._argv[0]}: {credential.api_version} is not {EXEC_API}")
        status = credential.status
        found = Identity(status.token, status.client_certificate_data.encode(), status.client_key_data.encode())
        if not found.token and not found.certificate:
            raise UnavailableError(f"credential plugin {self._argv[0]}: neither token nor certificate")
        return found, status.expiration_timestamp


def read(content: Content) -> bytes:
    if isinstance(content, bytes):
        return content
    try:
        return content.read_bytes()
    except OSError as error:
        raise UnavailableError(f"{content}: {error.strerror}") from error
