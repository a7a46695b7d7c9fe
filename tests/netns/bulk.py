"""One end of a bulk transfer over TCP: `bulk.py receive ADDRESS PORT` or `bulk.py send FROM ADDRESS PORT COUNT`.

Both print the SHA-256 of what they sent or received. The receiver says `listening` first. Run with `python -I -S`.
"""

import hashlib
import random
import socket
import sys


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def receive(address: str, port: str) -> str:
    with socket.create_server((address, int(port)), family=family_of(address)) as server:
        print("listening", flush=True)
        connection, _ = server.accept()
    digest = hashlib.sha256()
    with connection:
        while part := connection.recv(1 << 16):
            digest.update(part)
    return digest.hexdigest()


def send(source: str, address: str, port: str, count: str) -> str:
    content = random.Random(1).randbytes(int(count))
    with socket.create_connection((address, int(port)), timeout=60, source_address=(source, 0)) as connection:
        connection.sendall(content)
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    print({"receive": receive, "send": send}[sys.argv[1]](*sys.argv[2:]))
