"""Reads the words of a command line into a filter of packets. A Service is asked of netproxy."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

from controlloop.durations import parse_duration
from controlloop.errors import OperatorError
from controlloop.family import IPNetwork
from netctl.explain.command import address_of, fits, frontends
from netctl.explain.flow_words import THIS_NODE, Target, read_target
from netctl.node import Node
from netctl.trace.packet_filter import Called, PacketFilter, read_network, with_protocol

ANY = "any"
LONGEST_S = 3600.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """The command line."""

    source: str
    destination: str
    protocol: str | None
    count: int
    timeout: str
    file: Path | None
    form: str

    @property
    def timeout_s(self) -> float:
        try:
            length = parse_duration(self.timeout)
        except ValueError:
            length = 0.0
        if not 0 < length <= LONGEST_S:
            raise OperatorError(f"trace: --timeout={self.timeout!r} is no time; want 5s, 2m, and 1h at most")
        return length


def read_filter(wanted: Wanted, node: Node) -> PacketFilter:
    """OperatorError that names what is wrong, UnreachableError when only netproxy could say what is meant."""
    is_from_node = wanted.source in THIS_NODE
    source = None if is_from_node or wanted.source == ANY else _source(wanted.source, node)
    called = [with_protocol(each, wanted.protocol or "") for each in _called(wanted.destination, node)]
    fitting = tuple(each for each in called if _is_one_family(source, each.network))
    if not fitting:
        ends = ", ".join(str(each.network) for each in called)
        raise OperatorError(f"trace: {source} and {ends} are of two families; want both of one")
    return PacketFilter(source, is_from_node, fitting)


def _source(text: str, node: Node) -> IPNetwork:
    if network := read_network(text):
        return network
    try:
        return ip_network(address_of(text, node))
    except OperatorError as error:
        raise as_of_trace(error) from None


def _is_one_family(source: IPNetwork | None, network: IPNetwork | None) -> bool:
    return source is None or network is None or source.version == network.version


def _called(text: str, node: Node) -> list[Called]:
    if text == ANY:
        return [Called()]
    if network := read_network(text):
        return [Called(network)]
    try:
        target = read_target(text)
    except OperatorError as error:
        raise as_of_trace(error) from None
    if target.address is not None:
        return [Called(ip_network(target.address), int(target.port), target.protocol)]
    return list(_of_service(target, node))


def _of_service(target: Target, node: Node) -> Iterator[Called]:
    """All addresses at which it is served, node ports included."""
    listed = frontends(node, f"/frontends-of/{target.service}")
    fitting = [each for each in listed if fits(each, target)]
    if not fitting:
        there = ", ".join(sorted({f"{each['port_name'] or each['port']}/{each['protocol']}" for each in listed}))
        what = f"it has {there}" if listed else "netproxy serves no such Service"
        raise OperatorError(f"trace: {target.service}{f':{target.port}' if target.port else ''}: {what}")
    for each in fitting:
        address = ip_address(each["address"])
        at_any = address.is_unspecified
        network = ip_network("::/0" if address.version == 6 else "0.0.0.0/0") if at_any else ip_network(address)
        yield Called(network, each["port"], each["protocol"], at_any)


def as_of_trace(error: OperatorError) -> OperatorError:
    """What reads the words of `explain` speaks in its name."""
    return OperatorError(str(error).replace("explain:", "trace:", 1))
