"""Connections and datagrams between the hosts of a network, and servers that tell who they are and whom they see.

Everything is in this one thread: a socket stays in the namespace it was opened in. Each server answers with its own
name and the caller's address as it arrived, so that one answer says where a call landed and whether it was
masqueraded. SCTP has no sockets here (CONFIG_IP_SCTP): an INIT is crafted, and its INIT-ACK carries the same words.
"""

import errno
import itertools
import selectors
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from namespace import inside
from network import ADDRESSES, HOST_OF, PODS, Network
from scapy.layers.sctp import SCTP, SCTPChunkInit, SCTPChunkInitAck, SCTPChunkParamStateCookie
from scapy.packet import Packet

from controlloop.family import Family, IPAddress
from proxy.frontends import Protocol

HOME_PORT = 8080
POD_PORTS = (HOME_PORT, 8081, 8082)
PORTS = {
    **dict.fromkeys(PODS, POD_PORTS),
    "node-1": (HOME_PORT, 30080, 30081, 30082, 31000),
    "node-2": (HOME_PORT,),
    "client": (80,),
}
"""Node-1 listens at the numbers of node ports too: a call that nobody translates lands there."""

LINGER_NOT = b"\1\0\0\0\0\0\0\0"
"""struct linger: close with a reset at once, so that no port is kept back."""

SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h
REFUSALS = (errno.ECONNREFUSED, errno.ECONNRESET)
CALLING_PORTS = range(32768, 61000)
"""Each call has the next one. The kernel would take any, and conntrack would know some of them from an earlier call."""
ANSWER_BYTES = 65536
LOOK_AGAIN_S = 0.02
MAPPED = "::ffff:"
ANY = {Family.V4: "0.0.0.0", Family.V6: "::"}


@dataclass(slots=True, eq=False)
class Call:
    """One connection or datagram, from a port of its own."""

    caller: str
    """A name of ADDRESSES."""
    address: IPAddress
    port: int
    protocol: Protocol = Protocol.TCP
    source: IPAddress | None = None
    """Bound to this address; None: what the route says, and that of `stranger` for it."""
    outcome: str = ""
    """`refused`, `unreachable`, or the name of who answered; empty as long as nothing has come back."""
    seen_as: str = ""
    """The caller's address as the server saw it."""
    own: str = ""
    """The caller's address as the caller knows it."""
    reached: str = ""
    """Which address of the server it was; TCP only."""
    opened: socket.socket = field(init=False, repr=False)
    own_port: int = 0

    @property
    def masqueraded(self) -> bool:
        return self.seen_as != self.own


def server_name(host: str, port: int) -> str:
    return host if port == HOME_PORT else f"{host}:{port}"


class Switchboard:
    def __init__(self, network: Network) -> None:
        self.network = network
        self._selector = selectors.DefaultSelector()
        self._ports = itertools.cycle(CALLING_PORTS)
        self._open: list[socket.socket] = []
        self.heard: defaultdict[bytes, list[str]] = defaultdict(list)
        """Names of the servers that got a datagram, by what was in it."""
        self._held: set[Call] = set()
        for host, ports in PORTS.items():
            with inside(network.namespace(host)):
                self._serve(host, ports)

    def close(self) -> None:
        self.hang_up()
        self._selector.close()
        for each in self._open:
            each.close()

    # -- servers --------------------------------------------------------------------------------------------------

    def _serve(self, host: str, ports: Sequence[int]) -> None:
        for port in ports:
            name = server_name(host, port)
            self._on_read(_listener(port), lambda s, n=name: self._accept(s, n))
            self._on_read(_datagram_server(port), lambda s, n=name: self._answer_datagram(s, n))
        for family in Family:
            raw = socket.socket(family.af, socket.SOCK_RAW, Protocol.SCTP.number)
            self._on_read(raw, lambda s, f=family: _answer_init(s, f, host, ports))

    def _on_read(self, opened: socket.socket, handler: Callable[[socket.socket], None]) -> None:
        opened.setblocking(False)
        self._open.append(opened)
        self._selector.register(opened, selectors.EVENT_READ, handler)

    def _accept(self, listener: socket.socket, name: str) -> None:
        connection, peer = listener.accept()
        own = connection.getsockname()[0]
        connection.send(f"{name} {peer[0].removeprefix(MAPPED)} {own.removeprefix(MAPPED)}\n".encode())
        self._on_read(connection, self._echo)

    def _answer_datagram(self, server: socket.socket, name: str) -> None:
        """From the address that was asked: a host may have several."""
        data, to, _, peer = server.recvmsg(ANSWER_BYTES, 256)
        self.heard[data] += [name]
        with suppress(OSError):
            server.sendmsg([f"{name} {peer[0].removeprefix(MAPPED)} {len(data)}\n".encode()], to, 0, peer)

    def _echo(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(ANSWER_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            connection.send(data)
        else:
            self._drop(connection)

    def _drop(self, opened: socket.socket) -> None:
        self._selector.unregister(opened)
        self._open.remove(opened)
        opened.close()

    # -- calls ----------------------------------------------------------------------------------------------------

    def place(self, calls: Iterable[Call], *, wait: Callable[[Call], float]) -> list[Call]:
        """Start all calls at once, and wait for what comes back of each up to `wait` seconds. They stay open."""
        placed = list(calls)
        self._held.update(placed)
        undecided = {}
        for caller, several in itertools.groupby(placed, lambda call: call.caller):
            with inside(self.network.namespace(HOST_OF.get(caller, caller))):
                for call in several:
                    self._start(call, undecided)
        self._until_decided(undecided, wait)
        return placed

    def hang_up(self, calls: Iterable[Call] | None = None) -> None:
        """These, or all that are open."""
        for call in list(self._held if calls is None else calls):
            call.opened.close()
            self._held.discard(call)
        self.pump()

    def pump(self) -> None:
        """Let the servers do what is waiting for them."""
        while ready := self._selector.select(0):
            for key, _ in ready:
                key.data(key.fileobj)

    def repeat(self, call: Call, *, wait_s: float) -> str:
        """Send again on the open socket of a call; what became of it, as in `Call.outcome`."""
        call.outcome = call.seen_as = ""
        try:
            call.opened.send(b"again" if call.protocol is Protocol.TCP else _greeting(call))
        except ConnectionError as error:
            _decide(call, error.errno)
            return call.outcome
        except PermissionError:
            pass  # see _greet
        self._selector.register(call.opened, selectors.EVENT_READ, None)
        self._until_decided({call.opened: call}, lambda _: wait_s)
        return call.outcome

    def echo(self, call: Call, data: bytes, *, within_s: float) -> int:
        """How many bytes come back on an open connection; of a datagram, how many its server says have arrived."""
        deadline = time.monotonic() + within_s
        sent = come_back = 0
        while come_back < len(data) and time.monotonic() < deadline:
            with suppress(BlockingIOError):
                sent += call.opened.send(data[sent:]) if sent < len(data) else 0
            self.pump()
            with suppress(BlockingIOError):
                answer = call.opened.recv(ANSWER_BYTES)
                come_back += int(answer.split()[2]) if call.protocol is Protocol.UDP else len(answer)
        return come_back

    def _start(self, call: Call, undecided: dict[socket.socket, Call]) -> None:
        family = Family.of(call.address)
        kind = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM, Protocol.SCTP: socket.SOCK_RAW}
        number = Protocol.SCTP.number if call.protocol is Protocol.SCTP else 0
        call.opened = opened = socket.socket(family.af, kind[call.protocol], number)
        opened.setblocking(False)
        if call.protocol is Protocol.TCP:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        source = call.source or (ADDRESSES[call.caller][family] if call.caller in ("stranger", "localhost") else None)
        call.own_port = next(self._ports)
        opened.bind((str(source or ANY[family]), 0 if call.protocol is Protocol.SCTP else call.own_port))
        undecided[opened] = call
        failure = opened.connect_ex((str(call.address), 0 if call.protocol is Protocol.SCTP else call.port))
        if failure in (0, errno.EINPROGRESS):
            call.own = opened.getsockname()[0]
            self._selector.register(opened, selectors.EVENT_READ, None)
            self._greet(call)
        else:
            _decide(call, failure)
            del undecided[opened]

    def _greet(self, call: Call) -> None:
        """The server speaks first on a connection."""
        # EPERM is said of what is refused and of what is dropped; an ICMP error tells them apart.
        with suppress(PermissionError):
            if call.protocol is not Protocol.TCP:
                call.opened.send(_greeting(call))

    def _until_decided(self, undecided: dict[socket.socket, Call], wait: Callable[[Call], float]) -> None:
        started = looked = time.monotonic()
        while undecided:
            for key, _ in self._selector.select(LOOK_AGAIN_S):
                if key.data is not None:
                    key.data(key.fileobj)
                elif _read_answer(undecided[key.fileobj]):
                    self._selector.unregister(key.fileobj)
                    del undecided[key.fileobj]
            now = time.monotonic()
            if now - looked < LOOK_AGAIN_S:
                continue
            looked = now
            for opened, call in list(undecided.items()):
                if _was_refused(call) or now - started >= wait(call):
                    self._selector.unregister(opened)
                    del undecided[opened]


def _listener(port: int) -> socket.socket:
    """Of both families."""
    opened = socket.create_server(("::", port), family=socket.AF_INET6, backlog=4096, dualstack_ipv6=True)
    # Whatever is echoed has room there until the caller comes to read it.
    opened.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 << 22)
    return opened


def _datagram_server(port: int) -> socket.socket:
    opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
    opened.bind(("::", port))
    return opened


def _answer_init(server: socket.socket, family: Family, host: str, ports: Sequence[int]) -> None:
    data, peer = server.recvfrom(ANSWER_BYTES)
    packet = _sctp(data, family)
    if packet.dport in ports and SCTPChunkInit in packet:
        words = SCTPChunkParamStateCookie(cookie=f"{server_name(host, packet.dport)} {peer[0]}\n".encode())
        answer = SCTP(sport=packet.dport, dport=packet.sport, tag=packet[SCTPChunkInit].init_tag)
        with suppress(OSError):
            server.sendto(bytes(answer / _init(SCTPChunkInitAck, [words])), (peer[0], 0))


def _greeting(call: Call) -> bytes:
    if call.protocol is Protocol.UDP:
        return b"hello"
    return bytes(SCTP(sport=call.own_port, dport=call.port) / _init(SCTPChunkInit))


def _init(chunk: type[Packet], parameters: Sequence[Packet] = ()) -> Packet:
    return chunk(init_tag=1, a_rwnd=65536, n_out_streams=1, n_in_streams=1, init_tsn=1, params=list(parameters))


def _sctp(data: bytes, family: Family) -> Packet:
    """A raw IPv4 socket gives the IP header, too."""
    return SCTP(data[(data[0] & 15) * 4 :] if family is Family.V4 else data)


def _read_answer(call: Call) -> bool:
    """Whether this decided the call."""
    try:
        data = call.opened.recv(ANSWER_BYTES)
    except BlockingIOError:
        return _was_refused(call)
    except OSError as error:
        _decide(call, error.errno)
        return True
    if call.protocol is Protocol.SCTP:
        packet = _sctp(data, Family.of(call.address))
        if SCTPChunkInitAck not in packet or packet.dport != call.own_port:
            return False
        data = packet[SCTPChunkParamStateCookie].cookie
    words = data.decode().split()
    call.outcome, call.seen_as, call.reached = (*words, "")[:3] if len(words) > 1 else ("closed", "", "")
    return True


def _was_refused(call: Call) -> bool:
    """Refused on the way by ICMP. Within one machine that happens while the kernel is still in `connect`, and then it
    keeps the error to itself until it has tried once more, a second later.
    """
    failure = call.opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failure:
        _decide(call, failure)
    return bool(failure)


def _decide(call: Call, failure: int) -> None:
    call.outcome = "refused" if failure in REFUSALS else f"failed: {errno.errorcode[failure]}"
