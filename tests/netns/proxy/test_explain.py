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
from rig import only_nftables
from tables import ANSWER_WITHIN_S, DROPPED_AFTER_S
from under_test import NFTABLES

from controlloop.family import Family
from netctl.explain.command import explained
from netctl.explain.flow_words import Target
from netctl.explain.walk import Verdict
from netctl.explain.walk_hooks import NO_WAY
from netctl.node import LiveNode
from proxy.frontends import Protocol

NOWHERE = LiveNode(Path("/nonexistent"))
SEED = int(os.environ.get("EXPLAIN_SEED", "1"))
ROUNDS = 5
FLOWS = 14
TRIES = 5

CALLERS = ("pod-1-1", "pod-1-3", "node-1", "client", "stranger", "localhost")
TARGETS = ("cluster-ip", "cluster-ip-2", "vip", "vip-2", "external-ip", "node-1", "second", "unallocated", "pod-1-2")
NAMES = {ADDRESSES[name][family]: name for name in (*PODS, "node-1", "node-2", "client") for family in Family}
NAMES |= {ADDRESSES[name][family]: HOST_OF[name] for name in HOST_OF for family in Family}
ON_NODE_1 = {"node-1", "localhost"}


def explain(rig, call):
    """On node-1, with netproxy's daemon down: there is none."""
    said = "-" if call.caller == "node-1" else str(call.source or ADDRESSES[call.caller][Family.of(call.address)])
    with inside(rig.namespace):
        return explained(said, Target(call.address, "", str(call.port), call.protocol.value), NOWHERE)


def to_cluster_ip(caller, family=Family.V4, source=None):
    return Call(caller, ADDRESSES["cluster-ip"][family], 80, source=source)


def words(explanation):
    """Share by what a call would see: the name of who answers, `refused`, `dropped`, and whether it is masqueraded."""
    found = Counter()
    for outcome in explanation.outcomes:
        if outcome.verdict is Verdict.ACCEPT:
            host = NAMES.get(outcome.packet.to.address, "")
            served = outcome.packet.to.port in PORTS.get(host, ())
            name = server_name(host, outcome.packet.to.port) if served else "refused"
            found[name, outcome.packet.masqueraded and served] += outcome.share
        elif is_refused_a_route(outcome):
            found["failed", False] += outcome.share
        else:
            found["refused" if outcome.verdict is Verdict.REJECT else "dropped", False] += outcome.share
    return found


def is_refused_a_route(outcome):
    """Before anything is sent: then the socket is told, in words of its own."""
    untouched = not outcome.packet.called and not outcome.packet.came_in
    return untouched and outcome.route is not None and outcome.route.kind in NO_WAY


def wrong(call, explanation):
    """Why what happened was not explained; empty when it was."""
    outcome = call.outcome.partition(": ")[0] or "dropped"
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
    weights = (f"{address}={random.choice((0, 1, 3, 10))}" for pod in PODS for address in ADDRESSES[pod].values())
    return {"nodenet.io/balance": random.choice(ways), "nodenet.io/weights": ",".join(weights)}


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
    if target == "unallocated":
        # The client has that address itself.
        caller = "pod-1-3"
    # A datagram from 127.0.0.1 fails in `send`, which no table of the switchboard expects.
    protocol = random.choice((Protocol.TCP, Protocol.TCP, Protocol.UDP)) if caller != "localhost" else Protocol.TCP
    number = random.choice((80, 80, 82)) if protocol is Protocol.TCP else random.choice((81, 81, 83))
    if target in ("node-1", "second"):
        number = random.choice((30080, 30081) if protocol is Protocol.TCP else (30180, 30181))
    return Call(caller, ADDRESSES[target][family], number, protocol)


@pytest.mark.kube_proxy("extra-8", "gap 5.7-4")
@pytest.mark.parametrize("number", range(ROUNDS))
def test_what_happens_was_explained(rig, number):
    random = Random(f"{SEED} {number}")
    pods = random.choice(("cidr", "cidr", "bridge", None))
    rig.given(*random_objects(random, rig.variant), pods=pods, masquerade_all=random.random() < 0.2)
    differing = []
    for family in Family:
        for flow in [random_flow(random, family) for _ in range(FLOWS)]:
            explanation = explain(rig, flow)
            assert sum(outcome.share for outcome in explanation.outcomes) == pytest.approx(1)
            outcomes = {name for name, _ in words(explanation)}
            lost = outcomes & {"dropped", "failed"} or explanation.verdict == "pass"
            calls = [Call(flow.caller, flow.address, flow.port, flow.protocol) for _ in range(TRIES)]
            rig.board.place(calls, wait=lambda _, lost=lost: DROPPED_AFTER_S if lost else ANSWER_WITHIN_S)
            rig.board.hang_up(calls)
            differing += [
                f"IPv{family.value} {flow.caller} -> {flow.protocol.value} {flow.address}:{flow.port}: {why}"
                for why in {wrong(call, explanation) for call in calls} - {""}
            ]
    assert not differing, "\n".join(["", *differing])


# -- in which shares --------------------------------------------------------------------------------------------------


def chi_square(counts, shares):
    total = counts.total()
    assert counts.keys() <= shares.keys()
    return sum((counts[name] - total * share) ** 2 / (total * share) for name, share in shares.items())


WEIGHTS = {"pod-1-1": 3, "pod-1-2": 2, "pod-2-1": 5}


@pytest.mark.kube_proxy("extra-8")
@pytest.mark.parametrize("balance", ["random", "round-robin", "weighted"])
def test_shares_are_as_explained(rig, balance):
    weights = ",".join(f"{ADDRESSES[pod][Family.V4]}={weight}" for pod, weight in WEIGHTS.items())
    annotations = {"nodenet.io/balance": balance, "nodenet.io/weights": weights}
    rig.given(service(annotations=annotations), slices(*WEIGHTS))
    shares = shares_of(explain(rig, to_cluster_ip("client")))
    wanted = {pod: weight / 10 if balance == "weighted" else 1 / 3 for pod, weight in WEIGHTS.items()}
    assert shares == pytest.approx(wanted, abs=1e-6)
    # With two degrees of freedom, 41 is passed once in 10**9 runs.
    assert chi_square(rig.spread("client", "cluster-ip", 80, count=600), shares) < 41


def shares_of(explanation):
    return {name: share for (name, _), share in words(explanation).items()}


@only_nftables
@pytest.mark.parametrize("balance", ["source-hash", "consistent"])
@pytest.mark.parametrize("family", Family)
def test_a_hash_of_the_client_leaves_one_endpoint(rig, balance, family):
    rig.given(service(annotations={"nodenet.io/balance": balance}), slices("pod-1-1", "pod-1-2", "pod-2-1"))
    clients = [CROWD_NETWORKS[family][number] for number in range(1, 31)]
    explained_ones = [explain(rig, to_cluster_ip("client", family, each)) for each in clients]
    expected = [name for each in explained_ones for name, share in shares_of(each).items() if share == 1]
    assert rig.landed(clients) == expected
    assert len(set(expected)) == 3


def test_a_client_is_remembered(rig):
    rig.given(service(sessionAffinity="ClientIP"), slices("pod-1-1", "pod-1-2", "pod-2-1"))
    assert len(shares_of(explain(rig, to_cluster_ip("client")))) == 3
    (landed,) = rig.spread("client", "cluster-ip", 80)
    assert shares_of(explain(rig, to_cluster_ip("client"))) == pytest.approx({landed: 1})
    assert len(shares_of(explain(rig, to_cluster_ip("stranger")))) == 3
