"""Asks a daemon on its unix socket."""

import socket
from pathlib import Path
from typing import Any

import msgspec

TIMEOUT_S = 2.0
WHO_MAY = " (it answers root and group nodenet)"


class UnreachableError(Exception):
    """The daemon does not answer; one line with the socket's path and the reason."""


def get_json(path: Path, page: str) -> Any:
    """GET a page that is one JSON document. UnreachableError for everything else."""
    try:
        return msgspec.json.decode(get(path, page))
    except msgspec.DecodeError as error:
        raise UnreachableError(f"{path}: not JSON: {error}") from None


def get(path: Path, page: str, timeout_s: float = TIMEOUT_S) -> bytes:
    """GET a page. The daemon closes the connection behind its answer. UnreachableError unless it is a 200."""
    request = f"GET {page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(path))
            connection.sendall(request)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError as error:
            reason = f"{error.strerror or error}{WHO_MAY if isinstance(error, PermissionError) else ''}"
            raise UnreachableError(f"{path}: {reason}") from None
    head, _, body = answer.partition(b"\r\n\r\n")
    first_line = head.partition(b"\r\n")[0].decode(errors="replace")
    if first_line.split()[1:2] != ["200"]:
        raise UnreachableError(f"{path}: {first_line or 'an empty answer'}")
    return body
