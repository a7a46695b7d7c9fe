"""What a fault is: something that is done to one host of a lab, and that can be undone."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from controlloop.repairs import BURST, PERIOD_S
from lab.cluster import Cluster
from lab.host import Host

PEACE_S = BURST * PERIOD_S
"""After which the daemons take a fight over one object for ended."""

Action = Callable[[Cluster, Host], None]


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    says: str
    """What is wrong then, with `{target}` for where."""
    code: str
    """Of the finding that it raises."""
    look: tuple[str, ...]
    """What to type after `netctl` to see that."""
    do: Action
    undo: Action
    target: str = "node-2"
    """Where, unless somebody chooses another host of that kind."""
    is_seen_by_others: bool = False
    """The finding is raised on the other nodes; else on the target, or on every node when that is none."""
    fades_s: float = 0.0
    """How long the finding outlives the fault, by design."""


def commands(*lines: str, stdin: str = "", on: str = "") -> Action:
    """Runs these on the target, or on the host named `on`; `{target}` stands for the target's name."""

    def act(cluster: Cluster, target: Host) -> None:
        host = cluster.host(on) if on else target
        for line in lines:
            words = [word.replace("{target}", target.name) for word in shlex.split(line)]
            host.run(words, stdin=stdin.replace("{target}", target.name))

    return act


def running(name: str, *argv: str) -> tuple[Action, Action]:
    """Starts a program on the target, and ends it. It ends with the lab as well."""

    def start(cluster: Cluster, target: Host) -> None:
        cluster.start(target, name, argv)

    def stop(cluster: Cluster, target: Host) -> None:
        cluster.end(target.name, name)

    return start, stop


def together(*actions: Action) -> Action:
    def act(cluster: Cluster, target: Host) -> None:
        for action in actions:
            action(cluster, target)

    return act
