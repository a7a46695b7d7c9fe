"""Says of each finished journey what it was: looks up rules, routes, the Service, and the kernel's drop reasons."""

import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import Any

from controlloop.family import Family
from netctl.explain.command import listed_peers, owner
from netctl.explain.kernel import KernelSight, forbidding
from netctl.explain.walk import Packet, Place, RouteAnswer
from netctl.explain.walk_hooks import Outcome
from netctl.explain.walk_overlay import Hop, hop
from netctl.node import Node
from netctl.trace.drop_reasons import BY_SOCKETS, NOT_OF_ROUTING, DropReasons
from netctl.trace.happened import Happened
from netctl.trace.headers import WITH_PORTS
from netctl.trace.journeys import Journey
from netctl.trace.path import Path, path
from netctl.trace.rule_book import RuleBook

AFTER_S = 0.02
"""How much later than its last message a packet may be dropped."""
Owner = tuple[bool, Mapping[str, Any] | None]


class Observer:
    def __init__(self, node: Node, reasons: DropReasons | None) -> None:
        self._node = node
        self._reasons = reasons
        self._book = RuleBook(node)
        self._stack = ExitStack()
        self._sights: dict[Family, KernelSight] = {}
        self._owners: dict[tuple[Place, str], Owner] = {}
        self._peers = listed_peers(node)
        self._offset = time.time() - time.monotonic()

    def close(self) -> None:
        self._stack.close()

    def told(self, journey: Journey) -> Happened:
        sight = self._sight(Family.of(journey.start.ends.to.address))
        found = path(journey, self._book.words, self._route(journey, sight), name_of, forbids(sight))
        live, frontend = self._owner(sight, found.start)
        return Happened(
            found.start,
            [found.outcome],
            found.notes,
            {found.outcome: self._hop(found.outcome, sight)},
            frontend,
            live,
            time=datetime.fromtimestamp(self.seconds(journey), UTC).isoformat(timespec="microseconds"),
            source_port=journey.start.ends.source.port,
            state=journey.state,
            length=journey.start.length,
            lost=found.lost,
            rule=found.rule,
            likely=self._likely(journey, found),
        )

    def seconds(self, journey: Journey) -> float:
        """When it began, since the epoch."""
        return journey.began + self._offset

    def _sight(self, family: Family) -> KernelSight:
        if family not in self._sights:
            self._sights[family] = KernelSight(family)
            self._stack.callback(self._sights[family].close)
        return self._sights[family]

    @staticmethod
    def _route(journey: Journey, sight: KernelSight) -> Callable[[Packet], RouteAnswer]:
        """Of what arrived, the way that it took; of what was lost, what the kernel says to such a packet."""

        def route(packet: Packet) -> RouteAnswer:
            if not journey.is_at_end:
                with suppress(OSError):
                    return sight.route(packet.to.address, packet.source, packet.came_in, packet.mark)
                return RouteAnswer("unicast")
            if journey.visits[-1].hook == "input":
                return RouteAnswer("local")
            known = sight.route(packet.to.address)
            return known if known.device == packet.goes_out else RouteAnswer("unicast", packet.goes_out)

        return route

    def _hop(self, outcome: Outcome, sight: KernelSight) -> Hop:
        try:
            return hop(outcome.packet.to.address, outcome.route, sight, self._peers)
        except OSError:
            # The device is gone by now.
            return Hop("none", problem="no way there any more")

    def _owner(self, sight: KernelSight, packet: Packet) -> Owner:
        if packet.protocol not in WITH_PORTS:
            return True, None
        key = packet.to, packet.protocol
        if key not in self._owners:
            self._owners[key] = owner(sight, packet, self._node)
        return self._owners[key]

    def _likely(self, journey: Journey, found: Path) -> tuple[str, ...]:
        if self._reasons is None or found.rule:
            return ()
        self._reasons.read(time.monotonic())
        version = journey.start.ends.to.address.version
        said = set(self._reasons.between(journey.after, journey.heard + AFTER_S, version))
        if found.lost or found.outcome.verdict.is_final:
            return tuple(sorted(reason for reason in said if not reason.startswith(NOT_OF_ROUTING)))
        is_at_socket = journey.visits[-1].hook == "input" and found.start.protocol in WITH_PORTS
        return tuple(sorted(said & BY_SOCKETS)) if is_at_socket else ()


def forbids(sight: KernelSight) -> Callable[[Packet], str]:
    """What is not for this node may not be let on."""

    def forbidden_by(packet: Packet) -> str:
        with suppress(OSError):
            if packet.came_in and not sight.is_local(packet.to.address):
                return forbidding(packet.family, packet.came_in)
        return ""

    return forbidden_by


def name_of(index: int) -> str:
    with suppress(OSError):
        return socket.if_indextoname(index) if index else ""
    return f"interface {index}"
