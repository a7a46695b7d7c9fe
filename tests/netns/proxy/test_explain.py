"""What `netctl explain` says, beside what packets do: random Services, in every mode and family.

Reality is always among what was explained, and in the shares that it names.
"""

import os
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from calls import POD_PORTS, PORTS, Call, server_name
from manifests import endpoint, port, service, slices
from namespace import inside
from network import ADDRESSES, CROWD_NETWORKS, HOST_OF, PODS
from rig import NFTABLES, only_nftables
from tables import ANSWER_WITHIN_S, DROPPED_AFTER_S

from controlloop.family import Family
from netctl.explain import explained
from netctl.flow_words import Target
from netctl.walk import Verdict
from proxy.frontends import Protocol

NOWHERE = Path("/nonexistent")
SEED = int(os.environ.get("EXPLAIN_SEED", "1"))
ROUNDS = 8
FLOWS = 14
TRIES = 5

CALLERS = ("pod-1-1", "pod-1-3", "pod-2-2", "node-1", "client", "stranger", "localhost")
TARGETS = ("cluster-ip", "cluster-ip-2", "vip", "vip-2", "external-ip", "node-1", "second", "unallocated", "pod-1-2")
NAMES = {ADDRESSES[name][family]: name for name in (*PODS, "node-1", "node-2", "client") for family in Family}
NAMES |= {ADDRESSES[name][family]: HOST_OF[name] for name in HOST_OF for family in Family}
ON_NODE_1 = {"node-1", "localhost"}


def explain(rig, caller, address, number, protocol, source=None):
    """On node-1, with netproxy's daemon down: there is none."""
    said = "-" if caller == "node-1" else str(source or ADDRESSES[caller][Family.of(address)])
    with inside(rig.board.network.namespace("node-1")):
        return explained(said, Target(address, "", str(number), protocol), NOWHERE)


def words(explanation):
    """Share by what a call would see: the name of who answers, `refused`, `dropped`, and whether it is masqueraded."""
    found = Counter()
    for outcome in explanation.outcomes:
        if outcome.verdict is Verdict.ACCEPT:
            host = NAMES.get(outcome.packet.to.address, "")
            served = outcome.packet.to.port in PORTS.get(host, ())
            name = server_name(host, outcome.packet.to.port) if served else "refused"
            found[name, outcome.packet.masqueraded and served] += outcome.share
        else:
            found["refused" if outcome.verdict is Verdict.REJECT else "dropped", False] += outcome.share
    return found


def wrong(call, explanation):
    """Why what happened was not explained; empty when it was."""
    outcome = call.outcome or "dropped"
    allowed = words(explanation)
    if explanation.verdict == "pass" and not any(name in PODS for name, _ in allowed):
        # Where no Service is asked the world decides; only no Service may have answered.
        return "a pod answered" if outcome.partition(":")[0] in PODS else ""
    if outcome not in {name for name, _ in allowed}:
        return f"{outcome} instead of {sorted(allowed)}"
    here = call.caller in ON_NODE_1 and outcome.partition(":")[0] in ON_NODE_1
    if call.seen_as and not here and (outcome, call.masqueraded) not in allowed:
        return f"{outcome}, masqueraded: {call.masqueraded}, instead of {sorted(allowed)}"
    return ""


# -- random Services --------------------------------------------------------------------------------------------------


def random_objects(random, variant):
    objects = []
    for number, (name, at) in enumerate((("one", "cluster-ip"), ("two", "cluster-ip-2"))):
        ports = [port(80, name="a", node=30080 + number), port(81, "UDP", name="b", node=30180 + number)]
        objects.append(
            service(
                name,
                at,
                type="LoadBalancer",
                ports=ports,
                balancer=[("vip", "vip-2")[number]],
                external=["external-ip"] if not number else [],
                annotations=random_balance(random, variant),
                **random_policies(random),
            )
        )
        chosen = random.sample(sorted(PODS), random.choice((0, 1, 2, 3, 4)))
        own = [port(random.choice(POD_PORTS), name="a"), port(8080, "UDP", name="b")]
        objects.append(slices(*(random_endpoint(random, pod) for pod in chosen), of=name, ports=own))
    return objects


def random_balance(random, variant):
    ways = ["random", "round-robin", "weighted"]
    if variant == NFTABLES:
        ways += ["source-hash", "consistent"]
    return {"nodenet.io/balance": random.choice(ways)}


def random_policies(random):
    policies = {
        "internalTrafficPolicy": random.choice(("Cluster", "Cluster", "Local")),
        "externalTrafficPolicy": random.choice(("Cluster", "Local")),
    }
    if random.random() < 0.3:
        policies["sessionAffinity"] = "ClientIP"
    if random.random() < 0.3:
        policies["loadBalancerSourceRanges"] = random.choice(
            (["10.10.0.0/16", "fd00:10:10::/48"], ["10.244.0.0/16", "fd00:10:244::/48"])
        )
    return policies


def random_endpoint(random, pod):
    return random.choice((pod, pod, endpoint(pod, ready=False, serving=True, terminating=True)))


def random_flow(random, family):
    caller, target = random.choice(CALLERS), random.choice(TARGETS)
    protocol = random.choice((Protocol.TCP, Protocol.TCP, Protocol.UDP))
    number = random.choice((80, 80, 82)) if protocol is Protocol.TCP else random.choice((81, 81, 83))
    if target in ("node-1", "second"):
        number = random.choice((30080, 30081) if protocol is Protocol.TCP else (30180, 30181))
    return Call(caller, ADDRESSES[target][family], number, protocol)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_what_happens_was_explained(rig, number):
    random = Random(f"{SEED} {number}")
    pods = random.choice(("cidr", "cidr", "bridge", None))
    rig.given(*random_objects(random, rig.variant), pods=pods, masquerade_all=random.random() < 0.2)
    differing = []
    for family in Family:
        for flow in [random_flow(random, family) for _ in range(FLOWS)]:
            explanation = explain(rig, flow.caller, flow.address, flow.port, flow.protocol.value)
            assert sum(outcome.share for outcome in explanation.outcomes) == pytest.approx(1)
            lost = all(name == "dropped" for name, _ in words(explanation)) or explanation.verdict == "pass"
            calls = [Call(flow.caller, flow.address, flow.port, flow.protocol) for _ in range(TRIES)]
            rig.board.place(calls, wait=lambda _, lost=lost: DROPPED_AFTER_S if lost else ANSWER_WITHIN_S)
            rig.board.hang_up(calls)
            differing += [
                f"IPv{family.value} {flow.caller} -> {flow.protocol.value} {flow.address}:{flow.port}: {why}"
                for why in {wrong(call, explanation) for call in calls} - {""}
            ]
    assert not differing, "\n".join(["", *differing])
