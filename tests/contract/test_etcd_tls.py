"""controlloop.etcd against a real etcd that asks who we are: certificates, users, and both renewed while we run."""

import asyncio
import shutil
from contextlib import aclosing

import pytest
from certificates import Authority
from deadline import PATIENCE_S

from controlloop.errors import OperatorError, UnavailableError
from controlloop.etcd import Etcd
from controlloop.etcd_access import Login, TlsFiles
from lab.etcd import EtcdServer, ServerTls

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl, which makes the certificates")

PASSWORD = "a=secret, with blanks"  # noqa: S105 - of a server that lives for a second


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca") / "ca")


@pytest.fixture(scope="module")
def client_pair(authority):
    return authority.issue("client")


def started(folder, authority, client_pair, server_pair, **options):
    tls = ServerTls(authority.certificate, *server_pair, *client_pair, **options)
    server = EtcdServer.on_this_machine(folder, tls=tls)
    server.start()
    return server


@pytest.fixture(scope="module")
def server(tmp_path_factory, authority, client_pair):
    """It wants a certificate from its clients."""
    made = started(tmp_path_factory.mktemp("etcd"), authority, client_pair, authority.issue("etcd"))
    yield made
    made.stop()


def files(authority, pair=()):
    return TlsFiles(str(authority.certificate), *map(str, pair))


async def reaches(server, tls, login=None):
    client = Etcd([server.client_url], tls=tls, login=login, timeout_s=2)
    try:
        revision = await client.put("/tls/a", b"one")
        async with aclosing(client.watch("/tls/", revision - 1)) as batches:
            return (await anext(batches)).put[0].value == b"one"
    finally:
        await client.close()


async def test_with_a_client_certificate_all_calls_pass(server, authority, client_pair):
    assert await reaches(server, files(authority, client_pair))


async def test_a_ca_alone_is_enough_for_a_server_that_asks_for_no_certificate(tmp_path, authority, client_pair):
    server = started(tmp_path, authority, client_pair, authority.issue("etcd-2"), wants_client=False)
    try:
        assert await reaches(server, files(authority))
    finally:
        server.stop()


async def refusal(server, tls):
    """What may heal: the other side renews its certificate, or we ours. One line, and worth another try."""
    with pytest.raises(UnavailableError) as caught:
        await reaches(server, tls)
    text = str(caught.value)
    assert text.startswith(f"etcd {server.client_url}: ")
    assert "\n" not in text
    return text


async def test_a_server_signed_by_somebody_else_is_not_talked_to(server, client_pair, tmp_path):
    text = await refusal(server, files(Authority(tmp_path / "other", "other authority"), client_pair))
    assert "CERTIFICATE_VERIFY_FAILED" in text


async def test_a_server_with_another_name_is_not_talked_to(tmp_path, authority, client_pair):
    # etcdctl asks for the health at the same address, and must be let in by another.
    pair = authority.issue("elsewhere", "IP:127.0.0.2,DNS:localhost")
    tls = ServerTls(authority.certificate, *pair, *client_pair)
    server = EtcdServer.on_this_machine(tmp_path, tls=tls)
    server.client_flags.append("--insecure-skip-tls-verify")
    server.start()
    try:
        assert "127.0.0.1" in await refusal(server, files(authority, client_pair))
    finally:
        server.stop()


async def test_without_a_certificate_a_strict_server_refuses(server, authority):
    await refusal(server, files(authority))


async def test_renewed_files_are_taken_without_a_restart(server, authority, client_pair, tmp_path):
    """First a certificate that the server does not take; then, at the same path, a good one."""
    pair = [tmp_path / "client.pem", tmp_path / "client.key"]
    put(Authority(tmp_path / "other").issue("client"), pair)
    client = Etcd([server.client_url], tls=files(authority, pair), timeout_s=2)
    with pytest.raises(UnavailableError):
        await client.get("/tls/a")
    # Half renewed: the key does not fit yet.
    shutil.copy(client_pair[0], pair[0])
    with pytest.raises(UnavailableError):
        await client.get("/tls/a")
    put(client_pair, pair)
    with pytest.raises(UnavailableError):
        await client.get("/tls/a")
    assert await client.put("/tls/a", b"renewed")
    await client.close()


def put(pair, paths):
    for source, path in zip(pair, paths, strict=True):
        shutil.copy(source, path)


def test_a_key_of_another_certificate_is_the_operators_move(authority, client_pair):
    other = authority.issue("another")
    with pytest.raises(OperatorError) as caught:
        Etcd(["https://h:2379"], tls=files(authority, (client_pair[0], other[1])))
    text = str(caught.value)
    assert text.startswith(f"--etcd-certfile {client_pair[0]}, --etcd-keyfile {other[1]}: ")
    assert "KEY_VALUES_MISMATCH" in text


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, authority, client_pair):
    """TLS, and users: root may do all, reader may read /tls/ alone."""
    server = started(
        tmp_path_factory.mktemp("guarded"), authority, client_pair, authority.issue("etcd-3"), wants_client=False
    )
    enable_users(server)
    yield server
    server.stop()


def enable_users(server):
    # A client certificate would be a login of its own, by its common name.
    server.client_flags = server.client_flags[:1]
    server.etcdctl("user", "add", f"root:{PASSWORD}")
    server.etcdctl("user", "grant-role", "root", "root")
    server.etcdctl("user", "add", "reader:reads")
    server.etcdctl("role", "add", "reads")
    server.etcdctl("role", "grant-permission", "reads", "read", "/tls/", "--prefix=true")
    server.etcdctl("user", "grant-role", "reader", "reads")
    server.etcdctl("auth", "enable")
    server.client_flags.append(f"--user=root:{PASSWORD}")


async def test_a_user_logs_in_for_every_kind_of_call(guarded, authority):
    assert await reaches(guarded, files(authority), Login("root", PASSWORD))
    client = Etcd([guarded.client_url], tls=files(authority), login=Login("root", PASSWORD))
    lease = await client.grant(60)
    assert await client.keep_alive(lease) == 60
    assert await client.create("/tls/leased", b"", lease)
    await client.revoke(lease)
    assert await client.get("/tls/leased") is None
    await client.close()


async def test_a_token_that_etcd_forgot_is_renewed(guarded, authority):
    """A restart forgets all tokens, as does time; reads, writes and watches go on."""
    client = Etcd([guarded.client_url], tls=files(authority), login=Login("root", PASSWORD))
    revision = await client.put("/tls/b", b"before")
    for call in (
        lambda: client.put("/tls/b", b"after"),
        lambda: client.get("/tls/b"),
        lambda: client.grant(60),
        lambda: first(client.watch("/tls/b", revision - 1)),
    ):
        guarded.stop()
        guarded.start()
        assert await answered(call)
    await client.close()


async def answered(call):
    """The connection to the server before its restart may have to end first."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await call()
            except UnavailableError:
                await asyncio.sleep(0.02)


async def first(batches):
    async with aclosing(batches):
        return (await anext(batches)).put


@pytest.mark.parametrize("login", [Login("root", "wrong"), Login("nobody", "x")], ids=lambda login: login.username)
async def test_a_refused_user_is_the_operators_move(guarded, authority, login):
    with pytest.raises(OperatorError) as caught:
        await reaches(guarded, files(authority), login)
    text = str(caught.value)
    assert text.startswith(f"--etcd-username {login.username}: etcd {guarded.client_url}: ")
    assert "authentication failed" in text
    assert login.password not in text.removeprefix("--etcd-username nobody")


async def test_a_user_without_permission_is_the_operators_move(guarded, authority):
    client = Etcd([guarded.client_url], tls=files(authority), login=Login("reader", "reads"))
    await client.list("/tls/")
    with pytest.raises(OperatorError, match="permission denied"):
        await client.put("/tls/a", b"")
    with pytest.raises(OperatorError, match="permission denied"):
        await anext(client.watch("/other/", 0))
    await client.close()


async def test_a_user_is_no_hindrance_where_etcd_knows_none(server, authority, client_pair):
    assert await reaches(server, files(authority, client_pair), Login("root", PASSWORD))


async def test_users_that_are_enabled_while_we_run_are_logged_in(tmp_path, authority, client_pair):
    server = started(tmp_path, authority, client_pair, authority.issue("etcd-4"), wants_client=False)
    try:
        client = Etcd([server.client_url], tls=files(authority), login=Login("root", PASSWORD))
        await client.put("/tls/a", b"open")
        enable_users(server)
        assert await client.put("/tls/a", b"guarded")
        await client.close()
    finally:
        server.stop()
