"""Labs for tests of the overlay alone: no netproxy runs there."""

import os
from contextlib import contextmanager

from lab.cluster import Cluster, up
from lab.topology import Spec


class OverlayOnly(Cluster):
    def start_daemons(self, which, *told):
        super().start_daemons([(node, program) for node, program in which if program == "netagent"], *told)


@contextmanager
def overlay_lab(name, **settings):
    """`name` must be the module's own: labs of one process are told apart by it."""
    made = up(Spec(f"{name}{os.getpid()}", **settings), owned=True, kind=OverlayOnly)
    try:
        yield made
    finally:
        made.down()
