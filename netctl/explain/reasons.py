"""Why a packet is refused, dropped or masqueraded, from the steps of its walk. Pure."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from netctl.explain.walk import Packet, Step, Verdict
from netctl.explain.walk_hooks import Outcome
from netctl.explain.walk_iptables import GATES

NAMED_CHAIN = re.compile(r"-[0-9a-f]{16}-([a-z0-9.-]+/[a-z0-9.-]+)/(?:tcp|udp|sctp)/\d+$")
"""A chain that only one frontend has, by proxy.nftables.names."""
SERVICE = re.compile(r"[a-z0-9.-]{1,63}/[a-z0-9.-]{1,63}(:[a-z0-9.-]{1,63})?")
"""As proxy.iptables.service_rules writes it into a comment."""


class Reason(NamedTuple):
    code: str
    text: str


NO_ENDPOINTS = Reason("no-endpoints", "no endpoint of the Service is ready")
POLICY_LOCAL = Reason("policy-local", "traffic policy Local, and no endpoint on this node is ready")
SOURCE_RANGES = Reason("source-ranges", "the caller is not in the Service's source ranges")
UNDEFINED_PORT = Reason("undefined-port", "the Service has no such port")
UNALLOCATED = Reason("unallocated-address", "no Service has this address")


def reason(outcome: Outcome, steps: Iterable[Step]) -> Reason:
    """Why it does not arrive."""
    if outcome.route is not None:
        if outcome.route.kind == "no-forwarding":
            return Reason("no-forwarding", outcome.why)
        return Reason("loopback" if outcome.packet.source.is_loopback else "no-route", outcome.why)
    taken = list(steps)
    last = next((step for step in reversed(taken) if step.does.split(", ")[-1] == outcome.verdict.value), None)
    if last is None or not last.is_ours:
        return Reason("foreign-rule", f"somebody else's rule: {told(last) if last else outcome.why}")
    return _ours(outcome.verdict, last, taken)


BY_COMMENT = {
    "a port or protocol that the service does not have": UNDEFINED_PORT,
    "an address that no service has": UNALLOCATED,
}
"""What the rules of proxy.nftables.constant say of themselves."""
BY_CHAIN = {"NETPROXY-LOOPBACK-ONLY": Reason("loopback", "an address of loopback from outside of this node")}


def told(step: Step) -> str:
    return f"{step.hook}: {step.place}{f': {step.why}' if step.why else ''}"


def _ours(verdict: Verdict, last: Step, taken: Sequence[Step]) -> Reason:
    chain = last.place.split()[-1]
    said = [step.why for step in taken if step.hook == last.hook]
    known = next((found for text, found in BY_COMMENT.items() if text in said), BY_CHAIN.get(chain))
    if known or "netagent" in last.place or "NETAGENT-" in last.place:
        return known or Reason("agent", f"{last.place}: {last.why}")
    if verdict is Verdict.REJECT:
        return NO_ENDPOINTS
    limited = any(step.does.startswith(f"jump {GATES}") for step in taken)
    return SOURCE_RANGES if limited or chain.startswith("sources-") else POLICY_LOCAL


def why_masqueraded(packet: Packet, steps: Iterable[Step]) -> str:
    """Why the endpoint sees an address of this node, or does not."""
    taken = list(steps)
    if not packet.masqueraded:
        return "the endpoint sees the caller's own address"
    if packet.source == packet.to.address:
        return "an endpoint calls itself: it must see another address than its own"
    marks = [step for step in taken if step.does.startswith("mark ") and step.hook != "postrouting" and step.is_ours]
    if not marks:
        return next((step.why for step in reversed(taken) if step.hook == "postrouting"), "")
    return _why_marked(marks[0])


def _why_marked(step: Step) -> str:
    because = "the answer must come back through this node"
    if "NETPROXY-" not in step.place:
        return step.why
    if step.why.startswith("!"):
        return f"not a pod: {because}"
    return f"this node calls: {because}" if "--src-type LOCAL" in step.why else because


def service_named(steps: Iterable[Step]) -> str | None:
    """As far as the rules themselves say it."""
    for step in steps:
        if "NETPROXY-" in step.place and SERVICE.fullmatch(step.why):
            return step.why
        if "netproxy " in step.place and (found := NAMED_CHAIN.search(step.does)):
            return found[1]
    return None
