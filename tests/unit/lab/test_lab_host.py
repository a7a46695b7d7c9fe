"""How programs are started on a lab host."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lab.enter import unreadable_ancestor
from lab.host import FALLBACK_UID, Host, as_daemon


def test_a_daemon_gets_its_user_and_one_capability():
    argv = as_daemon(["/venv/bin/netagent", "--iface=eth0"])
    assert argv[0] == "setpriv"
    assert argv[-2:] == ["/venv/bin/netagent", "--iface=eth0"]
    assert {"--clear-groups", "--no-new-privs", "--bounding-set=-all,+net_admin"} <= set(argv)
    assert "--reuid=0" not in argv


def test_the_number_for_a_user_that_is_not_installed_is_one_that_debian_leaves_free():
    assert 60_000 <= FALLBACK_UID <= 64_999


@pytest.fixture
def host(tmp_path):
    return Host("node-1", "nodenet-x-node-1", tmp_path / "node-1", private_run=True)


def test_the_callers_settings_stay_outside(host, monkeypatch):
    monkeypatch.setenv("NODE_NAME", "the-machine")
    monkeypatch.setenv("ETCDCTL_ENDPOINTS", "http://elsewhere")
    environment = host.environment({"MORE": "1"})
    assert environment["NODENET_HOST"] == "node-1"
    assert environment["MORE"] == "1"
    assert not {"NODE_NAME", "ETCDCTL_ENDPOINTS"} & environment.keys()


def test_a_folder_that_only_root_may_pass_is_found_above_a_program():
    with TemporaryDirectory() as closed:
        found = unreadable_ancestor(Path(closed) / "open" / "program")
        # The topmost one: where temporary files are private already, that is further up.
        assert found in (Path(closed), *Path(closed).parents)
    assert unreadable_ancestor(Path("/usr/bin/env")) is None
