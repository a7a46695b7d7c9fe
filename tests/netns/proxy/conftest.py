"""One network for all tests of flows; on its node-1 a proxy of each variant in turn, for each module."""

import os
import resource

import network
import pytest
from calls import Switchboard
from rig import Rig
from under_test import VARIANTS


@pytest.fixture(scope="session")
def board():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    made = network.build(f"flows{os.getpid()}")
    switchboard = Switchboard(made)
    yield switchboard
    switchboard.close()
    made.cluster.down()


@pytest.fixture(scope="module", params=VARIANTS)
def rig(request, board):
    made = Rig(board, request.param)
    made.given()
    yield made
    made.close()
