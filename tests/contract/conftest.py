import pytest
from namespace import fresh_namespace
from overlay_node import MemoryKernel, output, overlay_kernel, sh

from lab.etcd import EtcdServer


@pytest.fixture(scope="session")
def etcd_server(tmp_path_factory):
    """One real etcd for the whole run. Who stops it starts it again."""
    server = EtcdServer.on_this_machine(tmp_path_factory.mktemp("etcd"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def overlay_namespace():
    with fresh_namespace():
        yield


@pytest.fixture
def underlay(overlay_namespace):
    sh(
        "ip link add under0 type veth peer name under1",
        "ip address add 192.0.2.1/24 dev under0",
        "ip address add 2001:db8::1/64 dev under0 nodad",
        "ip link set under0 up",
        "ip link set under1 up",
    )
    yield
    for link in output("ip -o link show type vxlan").splitlines():
        sh(f"ip link del {link.split()[1].rstrip(':')}")
    sh("ip link del under0")


@pytest.fixture
def real(underlay):
    kernel = overlay_kernel()
    yield kernel
    kernel.close()


@pytest.fixture(params=["memory", "linux"])
def kernel(request):
    return MemoryKernel() if request.param == "memory" else request.getfixturevalue("real")
