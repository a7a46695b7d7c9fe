"""What netproxy believes and wants, whole, for netctl: `/objects` and `/desired`.

Both may be megabytes. The loop only takes copies of what stands in dictionaries; a thread puts them into words.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from controlloop.family import Family
from controlloop.http_server import Answer, Reply, Routes
from controlloop.iptables.kernel import IptablesChains, program_name
from controlloop.wanted import WantedRules, desired_page, listed
from proxy.config import ProxyMode
from proxy.counting.kernel import TABLE as COUNTERS
from proxy.iptables.chains import PREFIX
from proxy.nftables.kernel import TABLE
from proxy.node import Surroundings
from proxy.rules import Engine, Rules
from proxy.services import ProxiedService
from proxy.tracker import TakenIn, Tracker


class BeliefPages:
    def __init__(
        self, mode: ProxyMode, tracker: Tracker, rules: Rules, around: Callable[[], Iterable[Surroundings]]
    ) -> None:
        self._mode = mode
        self._tracker = tracker
        self._rules = rules
        self._around = around

    def routes(self) -> Routes:
        return {"/objects": self.objects, "/desired": self.desired}

    def objects(self) -> Reply:
        """Services and slices as they were read, and all else that rules follow from."""
        taken = self._tracker.taken_in()
        head = {
            "apiVersion": "nodenet.io/v1alpha1",
            "kind": "ProxyObjects",
            "mode": self._mode,
            "node": taken.node,
            "options": taken.options,
            "surroundings": list(self._around()),
        }
        return asyncio.to_thread(lambda: Answer(200, objects_page(head, taken), "application/json"))

    async def desired(self) -> Answer:
        """All rules, from the plan, with the Services that want them."""
        counted = (wanted_table(family, COUNTERS, engine) for family, engine in self._rules.counters.items())
        rules = [*[await wanted_rules(family, engine) for family, engine in self._rules.engines.items()], *counted]
        head = {"begun": self._rules.written}
        return await asyncio.to_thread(lambda: Answer(200, desired_page(head, rules), "application/json"))


def objects_page(head: dict[str, Any], taken: TakenIn) -> bytes:
    opening = msgspec.json.encode(head, enc_hook=str)[:-1]
    services, slices = listed(map(_with_text, taken.services)), listed(_from_objects(taken))
    return b"".join([opening, b',"services":', *services, b',"slices":', *slices, b"}\n"])


def _with_text(service: ProxiedService) -> ProxiedService:
    """A document's keys are text."""
    if not service.weights:
        return service
    return msgspec.structs.replace(service, weights={str(key): weight for key, weight in service.weights.items()})


def _from_objects(taken: TakenIn) -> Iterator[tuple[Any, ...]]:
    """Kind and name of an object, and the slices that it gives."""
    return ((kind.value, name.namespace, name.name, slices) for (kind, name), slices in taken.slices)


async def wanted_rules(family: Family, engine: Engine) -> WantedRules:
    backend = engine.backend
    if isinstance(backend, IptablesChains):
        program = program_name(family, await backend.variant(), "save")
        return WantedRules(program, family.nft, "", (PREFIX,), dict(engine.desired), engine.owned())
    return wanted_table(family, TABLE, engine)


def wanted_table(family: Family, table: str, engine: Engine) -> WantedRules:
    return WantedRules("nft", family.nft, table, (), dict(engine.desired), engine.owned())
