"""What netagent wants in the kernel, whole, for netctl: `/desired`."""

import asyncio

from controlloop.http_server import Answer
from controlloop.wanted import desired_page
from netagent.instance import Instance
from netagent.status import Status
from netagent.wanted import wanted_objects


async def desired(status: Status, instance: Instance) -> Answer:
    """The loop only takes copies; a thread puts them into words."""
    firewall = status.firewall
    rules = await firewall.wanted() if firewall else []
    objects = wanted_objects(status.overlay) if status.overlay else ()
    written = all(stats.syncs for stats in firewall.stats.values()) if firewall else True
    # Before that the kernel holds what an earlier run left.
    begun = written and status.last_reconcile is not None
    head = {"begun": begun, "protocol": instance.protocol, "alias": instance.alias}
    return await asyncio.to_thread(lambda: Answer(200, desired_page(head, rules, objects), "application/json"))
