"""`netctl explain --verify`: sends one packet and lays what happens beside what was explained.

From this node, or from the namespace below /run/netns that has the caller's address. A connection is opened and closed;
over UDP one datagram is sent. What became of it conntrack tells, by the port that only this packet has.
"""

import ctypes
import errno
import os
import select
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from controlloop.errors import OperatorError
from controlloop.family import IPAddress
from netctl.explain.explanation import Explanation
from netctl.explain.walk import Packet, Place
from proxy.addresses.kernel import local_addresses
from proxy.conntrack.kernel import flows
from proxy.frontends import Protocol

T = TypeVar("T")

NAMESPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000
WAIT_S = 1.0
REFUSALS = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPERM, errno.EACCES, errno.ENETUNREACH, errno.EHOSTUNREACH)
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class Sent(NamedTuple):
    port: int
    """It was sent from."""
    outcome: str
    """`answered`, `refused`, `silent`: nothing came back."""


def verified(explanation: Explanation) -> Mapping[str, Any]:
    """The answer as a document; OperatorError where the packet cannot be sent from here."""
    packet = explanation.packet
    if packet.protocol not in KINDS:
        raise OperatorError(f"explain --verify: {packet.protocol} has no sockets here; want tcp or udp")
    with ThreadPoolExecutor(1) as other_thread:
        # Only this thread moves; the process stays where it is.
        sent = other_thread.submit(_send_from, packet).result()
    landed = _landed(packet, sent.port)
    agrees, text = judged(explanation, sent, landed)
    return {"agrees": agrees, "outcome": sent.outcome, "landed": str(landed) if landed else None, "text": text}


def judged(explanation: Explanation, sent: Sent, landed: Place | None) -> tuple[bool, str]:
    """Whether it was among what was explained, and what it was."""
    verdict = explanation.verdict
    where = f"{sent.outcome}, {f'at {landed}' if landed else 'and conntrack has no flow'}"
    if landed is not None and landed != explanation.packet.to:
        agrees = any(backend.place == landed for backend in explanation.backends)
    else:
        wanted = {"reject": "refused", "drop": "silent", "pass": sent.outcome}
        agrees = wanted.get(verdict) == sent.outcome
    elsewhere = not agrees and landed is None and verdict == "dnat" and explanation.packet.came_in
    doubt = "; did it come by this node at all?" if elsewhere else ""
    return agrees, f"{'as explained' if agrees else 'NOT as explained'}: {where}{doubt}"


def _send_from(packet: Packet) -> Sent:
    if packet.came_in:
        _enter(namespace_of(packet.source))
    return _send(packet)


def _send(packet: Packet) -> Sent:
    with closing(socket.socket(packet.family.af, KINDS[packet.protocol])) as caller:
        caller.setblocking(False)
        source = str(packet.source) if int(packet.source) else ""
        caller.bind((source or ("::" if packet.family.value == 6 else "0.0.0.0"), 0))  # noqa: S104 - asks the kernel
        failure = caller.connect_ex((str(packet.to.address), packet.to.port))
        port: int = caller.getsockname()[1]
        if failure in (0, errno.EINPROGRESS):
            failure = _exchange(caller, packet.protocol)
        outcome = "refused" if failure in REFUSALS else "silent" if failure else "answered"
        return Sent(port, outcome)


def _exchange(caller: socket.socket, protocol: str) -> int:
    """The error that came of it; 0: there is somebody."""
    try:
        if protocol == "udp":
            caller.send(b"\n")
            ready, _, _ = select.select([caller], [], [], WAIT_S)
            return 0 if ready and caller.recv(1) is not None else errno.ETIMEDOUT
        _, ready, _ = select.select([], [caller], [], WAIT_S)
        return caller.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if ready else errno.ETIMEDOUT
    except OSError as error:
        return error.errno or errno.EIO


def namespace_of(address: IPAddress) -> Path:
    """The named one in which the address is at home."""
    for path in _nearest_first():
        with ThreadPoolExecutor(1) as visitor:
            if address in visitor.submit(_addresses_in, path).result():
                return path
    raise OperatorError(
        f"explain --verify: {address} is neither this node's nor that of a namespace below {NAMESPACES}; run it there"
    )


def _nearest_first() -> list[Path]:
    """Several labs on one machine have the same addresses: the names of a lab's own hosts begin alike."""
    here = os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116 - a link that leads to no path
    paths = sorted(NAMESPACES.glob("*"))
    own = next((path.name for path in paths if path.stat().st_ino == here), "")
    return sorted(paths, key=lambda path: -sum(a == b for a, b in zip(path.name, own, strict=False)))


def _addresses_in(path: Path) -> frozenset[IPAddress]:
    try:
        _enter(path)
        return local_addresses()
    except OSError:
        return frozenset()


def _enter(path: Path) -> None:
    """Move the calling thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open() as handle:
        if libc.setns(handle.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"{path}: {os.strerror(ctypes.get_errno())}")


def _landed(packet: Packet, port: int) -> Place | None:
    """Where conntrack says that the flow goes; None: it has none."""
    wanted = port.to_bytes(2, "big"), packet.to.address.packed, packet.to.port.to_bytes(2, "big")
    for flow in flows(packet.family, Protocol(packet.protocol)):
        if (flow.source_port, flow.destination, flow.destination_port) == wanted:
            return Place(ip_address(flow.endpoint), int.from_bytes(flow.endpoint_port, "big"))
    return None
