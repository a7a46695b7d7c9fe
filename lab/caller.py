"""Calls an address COUNT times, each time from a new port, and prints one line per call: what the responder said, or
why there was no answer (`refused`, `timeout`, `unreachable`). Standard library only, run with `python -I -S`.
"""

import socket
import sys


def call(protocol: str, address: str, port: int, timeout_s: float) -> str:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as caller:
        caller.settimeout(timeout_s)
        try:
            caller.connect((address, port))
            if protocol == "udp":
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
    for _ in range(int(count)):
        print(call(protocol, address, int(port), float(timeout_s)))


if __name__ == "__main__":
    main()
