import pytest

from lab.etcd import EtcdServer


@pytest.fixture(scope="session")
def etcd_server(tmp_path_factory):
    """One real etcd for the whole run. Who stops it starts it again."""
    server = EtcdServer.on_this_machine(tmp_path_factory.mktemp("etcd"))
    server.start()
    yield server
    server.stop()
