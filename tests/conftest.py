import os

import pytest
from hypothesis import settings
from namespace import fresh_namespace

# gRPC stops its threads at every fork, sometimes in a way that ends the child; ours only enter a namespace and become
# another program. It reads this when it is imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

# No test is timed: the machine may be busy.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def netns():
    with fresh_namespace() as name:
        yield name
