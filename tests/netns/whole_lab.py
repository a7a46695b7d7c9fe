"""A lab with everything in it, for tests that need one of their own."""

import itertools
import os

from lab.cluster import up
from lab.topology import Spec
from lab.workload import start_responders

numbers = itertools.count(1)


def bring_up(**settings):
    """It belongs to this process: a test run that is killed leaves it to be swept."""
    cluster = up(Spec(f"t{os.getpid()}-{next(numbers)}", **settings), owned=True)
    try:
        start_responders(cluster)
    except BaseException:
        cluster.down()
        raise
    return cluster
