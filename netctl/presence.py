"""What sends packets or writes rules does so on a node of nodenet: anywhere else hardly anybody means it."""

from controlloop.client import UnreachableError
from netctl.node import Node

ANYWAY = "--without-daemons"


class NoDaemonError(Exception):
    """None of nodenet's daemons answers; one line that says what to do."""


def require_daemon(node: Node) -> None:
    """NoDaemonError unless one of them answers on its socket."""
    silent: list[str] = []
    for daemon in node.daemons:
        try:
            node.page(daemon, "/status")
        except UnreachableError as error:
            silent.append(str(error))
        else:
            return
    raise NoDaemonError(f"no daemon of nodenet answers here ({'; '.join(silent)}); {ANYWAY} does it nevertheless")
