"""All frontends on one page, `/frontends`: what a bundle keeps, so that any of them can be asked for later."""

import asyncio
from collections.abc import Sequence

import msgspec

from controlloop.http_server import Answer
from proxy.frontend_pages import document
from proxy.frontends import Frontend
from proxy.tracker import Tracker

PORTION = 100
"""Services in one go: in between, the loop turns. Some 5 ms each."""


async def every_frontend(tracker: Tracker) -> Answer:
    """Portion by portion, and put into words in a thread: there may be tens of thousands."""
    services = list(tracker.services())
    parts: list[bytes] = []
    for start in range(0, len(services), PORTION):
        # One that went meanwhile has none.
        portion = [each for service in services[start : start + PORTION] for each in tracker.frontends(service)]
        if portion:
            parts.append(await asyncio.to_thread(encoded, portion))
    head = b'{"apiVersion":"nodenet.io/v1alpha1","kind":"FrontendList","items":['
    return Answer(200, head + b",".join(parts) + b"]}\n", "application/json")


def encoded(frontends: Sequence[Frontend]) -> bytes:
    """The inside of a JSON list."""
    return msgspec.json.encode([document(frontend) for frontend in frontends])[1:-1]
