"""What `netctl check etcd` finds at real servers: safe ones, open ones, full ones, and none."""

import json
from subprocess import CalledProcessError

import pytest
from certificates import Authority

from controlloop.errors import OperatorError
from controlloop.etcd_settings import EtcdSettings
from lab.etcd import EtcdServer, ServerTls, free_port
from netctl.findings.etcd_facts import read_etcd
from netctl.findings.judge_etcd import judge_etcd

PREFIX = "/coreos.com/network"
CONFIG = '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}'
OLD = "NN402"
"""Debian 12's etcd is 3.4."""


def lease(address):
    return json.dumps({"PublicIP": address, "BackendType": "vxlan", "BackendData": {"VNI": 1}})


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, authority):
    """TLS, and users: `node` may do what an agent needs, `wide` may read everything."""
    pair = authority.issue("etcd")
    tls = ServerTls(authority.certificate, *pair, *authority.issue("client"), wants_client=False)
    server = EtcdServer.on_this_machine(tmp_path_factory.mktemp("guarded"), tls=tls)
    server.start()
    server.client_flags = server.client_flags[:1]
    server.etcdctl("put", f"{PREFIX}/config", CONFIG)
    server.etcdctl("put", f"{PREFIX}/subnets/10.244.1.0-24", lease("10.10.0.1"))
    for name in ("root", "node", "wide"):
        server.etcdctl("user", "add", f"{name}:secret")
        server.etcdctl("role", "add", name)
        server.etcdctl("user", "grant-role", name, name)
    server.etcdctl("role", "grant-permission", "node", "read", f"{PREFIX}/config")
    server.etcdctl("role", "grant-permission", "node", "readwrite", f"{PREFIX}/subnets", "--prefix=true")
    server.etcdctl("role", "grant-permission", "wide", "read", "", "--from-key=true")
    server.etcdctl("auth", "enable")
    yield server
    server.stop()


def found(url, **settings):
    facts = read_etcd(EtcdSettings((url,), PREFIX, **settings))
    return sorted(each.code for each in judge_etcd(facts))


def as_user(server, authority, name, password="secret"):  # noqa: S107
    return found(server.client_url, ca_file=str(authority.certificate), username=name, password=password)


def test_a_user_with_no_more_than_a_node_needs_is_fine(guarded, authority):
    assert as_user(guarded, authority, "node") == [OLD]


def test_a_user_who_reads_more_is_found(guarded, authority):
    assert as_user(guarded, authority, "wide") == [OLD, "NN405"]


def test_a_wrong_password_and_no_user_at_all_are_told(guarded, authority):
    assert as_user(guarded, authority, "node", "wrong") == ["NN409"]
    assert found(guarded.client_url, ca_file=str(authority.certificate)) == [OLD, "NN409"]


def test_a_server_that_is_away_is_one_finding():
    assert found(f"http://127.0.0.1:{free_port()}") == ["NN401", "NN403"]


def fill(server):
    for number in range(20):
        server.etcdctl("put", f"/filler/{number}", "x" * 20_000)


def test_a_server_without_space_is_found(tmp_path):
    server = EtcdServer.on_this_machine(tmp_path, options=["--quota-backend-bytes=100000"])
    server.start()
    try:
        server.etcdctl("put", f"{PREFIX}/config", CONFIG)
        server.etcdctl("put", f"{PREFIX}/subnets/garbage", "{")
        with pytest.raises(CalledProcessError):
            fill(server)
        assert found(server.client_url) == [OLD, "NN403", "NN404", "NN407", "NN410"]
    finally:
        server.stop()


def test_a_key_that_others_may_read_is_found(guarded, authority):
    certificate, key = authority.issue("open")
    key.chmod(0o644)
    files = {"ca_file": str(authority.certificate), "cert_file": str(certificate), "key_file": str(key)}
    assert "NN411" in found(guarded.client_url, **files)


def test_a_file_that_is_not_there_is_the_operators_move(guarded):
    with pytest.raises(OperatorError, match="--etcd-cafile /nowhere"):
        found(guarded.client_url, ca_file="/nowhere")
