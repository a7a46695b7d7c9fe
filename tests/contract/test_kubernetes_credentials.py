"""Who the client says it is, and whom it believes: tokens, plugins, certificates, over HTTP and TLS."""

import base64
import shutil
import ssl
import subprocess
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
from apiclient import Annotated, client_of
from apiserver import node, running_apiserver

from controlloop.errors import OperatorError, UnavailableError
from controlloop.goflags import Given
from controlloop.kubernetes.access import Access
from controlloop.kubernetes.answers import DeniedError
from controlloop.kubernetes.client import ApiClient
from controlloop.kubernetes.connection import Server
from controlloop.kubernetes.credentials import Plugin, Stored
from controlloop.kubernetes.decode import Name
from controlloop.kubernetes.kubeconfig import load_access
from controlloop.kubernetes.resources import NODES


@pytest.fixture
async def server():
    async with running_apiserver() as made:
        yield made


# -- who we are -----------------------------------------------------------------------------------------------------


async def test_a_token_that_is_renewed_on_disk_is_in_use_with_the_next_request(server, tmp_path):
    file = tmp_path / "token"
    file.write_text("one\n")
    client = client_of(server, Stored(token=file))
    server.accept_only("one")
    await client.list(NODES, Annotated)
    server.accept_only("two")
    with pytest.raises(DeniedError, match="list nodes: the API server does not accept our credentials"):
        await client.list(NODES, Annotated)
    file.write_text("two\n")
    await client.list(NODES, Annotated)


async def test_a_token_file_that_is_gone_is_unavailable_and_comes_back(server, tmp_path):
    client = client_of(server, Stored(token=tmp_path / "token"))
    with pytest.raises(UnavailableError, match="token: No such file"):
        await client.list(NODES, Annotated)
    (tmp_path / "token").write_text("any")
    await client.list(NODES, Annotated)


@pytest.mark.parametrize("token", [b"a\nb", b"a\rX: y", b"\xff", "t\u00f6ken".encode(), b"a\0b"])
async def test_a_token_file_of_garbage_is_unavailable(server, tmp_path, token):
    (tmp_path / "token").write_bytes(token)
    with pytest.raises(UnavailableError, match="the token holds what no token may hold"):
        await client_of(server, Stored(token=tmp_path / "token")).list(NODES, Annotated)


async def test_a_plugin_is_asked_once_and_again_when_its_token_is_refused(server, tmp_path):
    script = tmp_path / "plugin"
    answer = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s"}}'
    script.write_text(
        f'#!/bin/sh\necho run >>"$COUNT"\ncase "$KUBERNETES_EXEC_INFO" in *ExecCredential*) ;; *) exit 1;; esac\n'
        f'printf \'{answer}\' "$(cat "$TOKEN")"\n'
    )
    script.chmod(0o700)
    (tmp_path / "token").write_text("one")
    environment = {"COUNT": str(tmp_path / "count"), "TOKEN": str(tmp_path / "token")}
    client = client_of(server, Plugin([str(script)], environment, None))
    server.accept_only("one")
    await client.list(NODES, Annotated)
    await client.list(NODES, Annotated)
    assert (tmp_path / "count").read_text() == "run\n"
    (tmp_path / "token").write_text("two")
    server.accept_only("two")
    await client.list(NODES, Annotated)
    assert (tmp_path / "count").read_text() == "run\nrun\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exit 3", "failed \\(exit 3\\)"),
        ("echo nonsense", "no ExecCredential"),
        ('echo \'{"apiVersion":"client.authentication.k8s.io/v1","status":{}}\'', "neither token nor certificate"),
        ('echo \'{"apiVersion":"v0","status":{"token":"x"}}\'', "v0 is not client.authentication.k8s.io/v1"),
    ],
)
async def test_a_plugin_that_fails_is_unavailable(server, tmp_path, text, reason):
    script = tmp_path / "plugin"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o700)
    with pytest.raises(UnavailableError, match=reason):
        await client_of(server, Plugin([str(script)], {}, None)).list(NODES, Annotated)


async def test_a_token_is_not_sent_in_the_clear_over_the_network():
    client = ApiClient(Access(Server("192.0.2.1", 80, tls=False), Stored(token=b"secret")))
    with pytest.raises(OperatorError, match=r"^http://192.0.2.1:80: a token is not sent over http; use https$"):
        await client.list(NODES, Annotated)


# -- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A CA, and a certificate for 127.0.0.1 and one for a client that it signed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    directory: Path = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-x509", "-days", "2")
    openssl(*new, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
    for name, more in (("server", ("-addext", "subjectAltName=IP:127.0.0.1")), ("client", ())):
        signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE", *more)
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt", *signed)
    openssl("pkey", "-in", "client.key", "-aes128", "-passout", "pass:secret", "-out", "locked.key")
    return directory


@pytest.fixture
async def tls_server(certificates):
    """Lets in nobody without a client certificate."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "ca.crt")
    tls.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    tls.verify_mode = ssl.CERT_REQUIRED
    async with running_apiserver(tls=tls) as made:
        yield made


def kubeconfig(path, server, cluster, user):
    path.write_bytes(
        msgspec.yaml.encode(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": f"https://127.0.0.1:{server.port}", **cluster}}],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    return ApiClient(load_access(Given("--kubeconfig-file", str(path)), Given("--kube-api-url", "")), timeout_s=5.0)


async def test_a_client_certificate_opens_the_door(tls_server, certificates):
    tls_server.put("nodes", node("a"))
    user = {"client-certificate": "client.crt", "client-key": "client.key"}
    client = kubeconfig(certificates / "kubeconfig", tls_server, {"certificate-authority": "ca.crt"}, user)
    assert len((await client.list(NODES, Annotated)).objects) == 1
    async with aclosing(client.watch(NODES, Annotated, "1")) as changes:
        assert (await anext(changes)).name == Name("", "a")


async def test_certificates_may_stand_in_the_kubeconfig_itself(tls_server, certificates, tmp_path):
    cluster = {"certificate-authority-data": (certificates / "ca.crt").read_bytes()}
    user = {
        "client-certificate-data": (certificates / "client.crt").read_bytes(),
        "client-key-data": (certificates / "client.key").read_bytes(),
    }
    client = kubeconfig(tmp_path / "kubeconfig", tls_server, b64(cluster), b64(user))
    assert (await client.list(NODES, Annotated)).objects == ()


async def test_without_client_certificate_the_door_stays_shut(tls_server, certificates):
    client = kubeconfig(certificates / "kubeconfig", tls_server, {"certificate-authority": "ca.crt"}, {})
    with pytest.raises(UnavailableError):
        await client.list(NODES, Annotated)


async def test_an_encrypted_key_is_an_error_and_no_question(tls_server, certificates):
    user = {"client-certificate": "client.crt", "client-key": "locked.key"}
    client = kubeconfig(certificates / "kubeconfig", tls_server, {"certificate-authority": "ca.crt"}, user)
    with pytest.raises(UnavailableError, match="certificate, key or CA cannot be used"):
        await client.list(NODES, Annotated)


async def test_a_server_that_is_not_who_it_should_be_is_refused(tls_server, certificates, tmp_path):
    user = {
        f"client-{what}": str(certificates / f"client.{end}") for what, end in (("certificate", "crt"), ("key", "key"))
    }
    stranger = kubeconfig(tmp_path / "kubeconfig", tls_server, {}, user)
    with pytest.raises(UnavailableError, match="certificate not accepted"):
        await stranger.list(NODES, Annotated)
    named = {"certificate-authority": str(certificates / "ca.crt"), "tls-server-name": "other.example"}
    with pytest.raises(UnavailableError, match=r"certificate not accepted: .*other\.example"):
        await kubeconfig(tmp_path / "kubeconfig", tls_server, named, user).list(NODES, Annotated)
    unchecked = kubeconfig(tmp_path / "kubeconfig", tls_server, {"insecure-skip-tls-verify": True}, user)
    assert (await unchecked.list(NODES, Annotated)).objects == ()


def b64(texts):
    return {key: base64.b64encode(text).decode() for key, text in texts.items()}
