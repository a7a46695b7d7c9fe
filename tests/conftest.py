import os
import tempfile

import pytest
from hypothesis import settings
from namespace import fresh_namespace

# gRPC stops its threads at every fork, sometimes in a way that ends the child; ours only enter a namespace and become
# another program. It reads this when it is imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

# No test is timed: the machine may be busy.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

LONGEST_FIRST = (
    "test_units_running.py",
    "test_netctl_manners.py",
    "test_lab_break.py",
    "test_bundle.py",
    "test_trace_drops.py",
    "test_two_overlays.py",
    "test_backend_healing.py",
    "test_proxy_repair.py",
    "test_netctl_diff.py",
    "test_backends.py",
    "test_graph_on_a_lab.py",
    "test_demo.py",
    "test_events_on_a_lab.py",
    "test_backend_agents.py",
    "test_netctl_check.py",
    "test_bad_input.py",
    "test_trace.py",
    "test_explain.py",
    "test_explain_on_a_lab.py",
    "test_proxy_flows.py",
    "test_balance.py",
    "test_proxy_daemon.py",
    "test_lease_recovery.py",
    "test_probes.py",
)
"""Files that take half a minute and more. What begins last should end soon, or one process waits for the other."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Processes take file by file in this order, which `--no-loadscope-reorder` leaves alone."""
    if hasattr(config, "workerinput"):
        places = {name: place for place, name in enumerate(LONGEST_FIRST)}
        items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(scope="session", autouse=True)
def _own_lock(tmp_path_factory):
    """Others who write legacy rules on this machine must not wait for us, nor be in our way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XTABLES_LOCKFILE", str(tmp_path_factory.mktemp("xtables") / "lock"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_temporary_files(tmp_path_factory):
    """What is kept for an operator, as the log of a daemon that did not start, goes with pytest's folders."""
    folder = str(tmp_path_factory.mktemp("temporary"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", folder)
        patch.setenv("TMPDIR", folder)
        yield


@pytest.fixture
def netns():
    with fresh_namespace() as name:
        yield name
