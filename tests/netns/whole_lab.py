"""A lab with everything in it, for tests that need one of their own."""

import itertools
import os
import subprocess

from deadline import PATIENCE_S

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


def netctl(cluster, *arguments, node="node-1", **streams):
    """Exit code, output and errors of the command on a node."""
    taken = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **streams}
    with cluster.host(node).popen(["netctl", *arguments], **taken) as process:
        output, errors = process.communicate(timeout=PATIENCE_S)
    return process.returncode, output, errors
