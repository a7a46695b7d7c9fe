"""A pod's steady traffic: a TCP connection held open and numbered UDP datagrams, until told to stop by a line on
stdin. Prints what got lost. Run with `python -I -S steady.py ADDRESS PORT`."""

import select
import socket
import sys
import time

INTERVAL_S = 0.005


def main() -> None:
    address, port = sys.argv[1], int(sys.argv[2])
    held = socket.create_connection((address, port), timeout=60)
    greeting = held.recv(256).decode().split()[0]
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.connect((address, port))
    datagrams.setblocking(False)
    print("started", flush=True)
    sent = received = echoes = 0
    while not select.select([sys.stdin], [], [], INTERVAL_S)[0]:
        datagrams.send(b"%d\n" % sent)
        sent += 1
        held.sendall(b"%d\n" % sent)
        assert held.recv(256) == b"%d\n" % sent
        echoes += 1
        received += drain(datagrams, 0)
    received += drain(datagrams, 30, until=sent - received)
    print(f"{greeting} sent={sent} received={received} echoes={echoes}", flush=True)


def drain(datagrams: socket.socket, wait_s: float, until: int = 1 << 30) -> int:
    count, deadline = 0, time.monotonic() + wait_s
    while count < until and select.select([datagrams], [], [], max(0, deadline - time.monotonic()))[0]:
        datagrams.recv(256)
        count += 1
    return count


if __name__ == "__main__":
    main()
