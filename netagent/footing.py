"""What the node stands on: its underlay interface and addresses, which may move or vanish while it runs."""

import asyncio
from collections.abc import Awaitable, Callable

from controlloop.errors import OperatorError
from controlloop.logs import Log
from netagent.backends.backend import Node

log = Log("netagent")

RETRY_S = 2.0
"""The kernel tells when an interface comes back; this is for what it did not tell."""

Survey = Callable[[], Awaitable[Node]]


class Footing:
    def __init__(self, node: Node, survey: Survey | None, wake: Callable[[], None]) -> None:
        """`survey` looks at the machine again, OperatorError while there is no way to join; None: nothing changes."""
        self.node = node
        self.gap = ""
        """Why there is nothing to stand on; empty when there is."""
        self._survey = survey
        self._wake = wake

    def interfaces(self) -> frozenset[str]:
        return frozenset(underlay.interface for underlay in self.node.underlay.values())

    async def look(self) -> Node | None:
        """The node before, when it stands on something else now."""
        if self._survey is None:
            return None
        try:
            node = await self._survey()
        except OperatorError as error:
            if str(error) != self.gap:
                log.warning("underlay lost", reason=error)
            self.gap = str(error)
            asyncio.get_running_loop().call_later(RETRY_S, self._wake)
            return None
        underlay = next(iter(node.underlay.values()))
        if self.gap:
            self.gap = ""
            log.info("underlay found", underlay=underlay)
        if node == self.node:
            return None
        log.info("underlay changed", underlay=underlay)
        before, self.node = self.node, node
        return before
