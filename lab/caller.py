"""Calls an address COUNT times, each time from a new port, and prints one line per call: what the responder said, or
why there was no answer (`refused`, `timeout`, `unreachable`). Standard library only, run with `python -I -S`.
"""

import socket
import sys
from contextlib import ExitStack


def call(caller: socket.socket, address: str, port: int) -> str:
    try:
        caller.connect((address, port))
        if caller.type is socket.SOCK_DGRAM:
            caller.send(b"hello\n")
        return caller.recv(256).decode().strip() or "closed"
    except (ConnectionRefusedError, PermissionError):  # EPERM: what the kernel tells a refused sender on this host
        return "refused"
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return f"unreachable {error.strerror}"


def main() -> None:
    protocol, address, port, count, timeout_s = sys.argv[1:]
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with ExitStack() as held:
        for _ in range(int(count)):
            # Held until the end: conntrack takes a port that comes back for the old connection, to the old endpoint.
            caller = held.enter_context(socket.socket(family, kind))
            caller.settimeout(float(timeout_s))
            print(call(caller, address, int(port)))


if __name__ == "__main__":
    main()
