import base64
from pathlib import Path

import msgspec
import pytest

from controlloop.errors import OperatorError
from controlloop.goflags import Given
from controlloop.kubernetes.credentials import Identity, Plugin, Stored
from controlloop.kubernetes.kubeconfig import in_cluster, load_access


def document(cluster=None, user=None, **more):
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "default"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
        **more,
    }


def access_by(kubeconfig, api_url):
    return load_access(Given("--kubeconfig-file", kubeconfig), Given("--kube-api-url", api_url))


@pytest.fixture
def write(tmp_path):
    def written(content):
        path = tmp_path / "kubeconfig"
        path.write_bytes(content if isinstance(content, bytes) else msgspec.yaml.encode(content))
        return str(path)

    return written


def b64(text):
    return base64.b64encode(text).decode()


def test_a_server_and_a_token(write):
    access = access_by(write(document(user={"token": "secret"})), "")
    assert str(access.server) == "https://10.0.0.1:6443"
    assert (access.credentials, access.ca, access.verify) == (Stored(token=b"secret"), None, True)


def test_files_are_found_beside_the_kubeconfig(write, tmp_path):
    for name in ("ca", "cert", "key", "token"):
        (tmp_path / name).write_text(name)
    user = {"tokenFile": "token", "client-certificate": "cert", "client-key": str(tmp_path / "key")}
    access = access_by(write(document({"certificate-authority": "ca"}, user)), "")
    assert access.ca == tmp_path / "ca"
    assert access.credentials == Stored(tmp_path / "token", tmp_path / "cert", tmp_path / "key")


def test_inline_certificates_win_over_files(write, tmp_path):
    (tmp_path / "cert").write_text("file")
    user = {"client-certificate": "cert", "client-certificate-data": b64(b"C"), "client-key-data": b64(b"K")}
    access = access_by(write(document({"certificate-authority-data": b64(b"A")}, user)), "")
    assert access.ca == b"A"
    assert access.credentials == Stored(b"", b"C", b"K")


async def test_a_token_is_not_shown_and_loses_its_newline(tmp_path):
    (tmp_path / "token").write_text(" secret\n")
    identity = await Stored(token=tmp_path / "token").identity()
    assert identity == Identity("secret")
    assert "secret" not in repr(identity)


def test_the_flag_wins_over_the_file(write):
    access = access_by(write(document(user={"token": "x"})), "https://[fd00::1]:8443")
    assert str(access.server) == "https://[fd00::1]:8443"


def test_a_url_alone_is_enough(write):
    assert str(access_by("", "http://127.0.0.1:8080").server) == "http://127.0.0.1:8080"


def test_an_unchecked_certificate_is_warned_about(write, caplog):
    access = access_by(write(document({"insecure-skip-tls-verify": True})), "")
    assert access.verify is False
    assert "the API server's certificate is not checked" in caplog.text


def test_a_context_without_user_shows_no_credentials(write):
    contexts = [{"name": "here", "context": {"cluster": "c"}}]
    assert access_by(write(document(contexts=contexts)), "").credentials == Stored()


def test_a_plugin_is_found_beside_the_kubeconfig(write, tmp_path):
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "./bin/login",
        "args": ["get-token"],
        "env": [{"name": "REGION", "value": "x"}],
        "interactiveMode": "IfAvailable",
        "provideClusterInfo": True,
    }
    credentials = access_by(write(document(user={"exec": plugin})), "").credentials
    assert isinstance(credentials, Plugin)
    assert credentials._argv == (str(tmp_path / "bin/login"), "get-token")
    assert credentials._environment["REGION"] == "x"
    assert "https://10.0.0.1:6443" in credentials._environment["KUBERNETES_EXEC_INFO"]


EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "command": "x"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expected `object`, got `null`"),
        (b"[]", "Expected `object`, got `array`"),
        (b"a: [", "no YAML: "),
        (b"\xff\xfe\x00", "no YAML: "),
        (document(clusters=3), "Expected `array | null`, got `int` - at `$.clusters`"),
        (document({"server": 3}), "Expected `str`, got `int` - at `$.clusters[0].cluster.server`"),
        (document({"server": ""}), "cluster c: server : want https://HOST:PORT"),
        (document({"server": "10.0.0.1:6443"}), "cluster c: server 10.0.0.1:6443: want https://HOST:PORT"),
        (document({"server": "https://h:99999"}), "cluster c: server https://h:99999: Port out of range 0-65535"),
        (document({"server": "https://h/api"}), "cluster c: server https://h/api: want https://HOST:PORT"),
        (document({"server": "https://a..b"}), "cluster c: server https://a..b: "),
        (document({"proxy-url": "http://p"}), "cluster c: proxy-url http://p is not supported"),
        (document({"certificate-authority": "gone"}), "cluster c: certificate-authority "),
        (document({"certificate-authority-data": "%"}), "cluster c: certificate-authority-data: no base64: "),
        (document(user={"client-key-data": "%"}), "user u: client-key-data: no base64: "),
        (document(user={"tokenFile": "gone"}), "user u: tokenFile "),
        (document(user={"auth-provider": {"name": "gcp"}}), "user u: auth-provider is not supported; "),
        (document(user={"username": "admin"}), "user u: username is not supported; "),
        (document(user={"exec": {**EXEC, "apiVersion": "v0"}}), "user u: exec: apiVersion v0 is not "),
        (document(user={"exec": {**EXEC, "interactiveMode": "Always"}}), "user u: exec: interactiveMode Always: "),
        (document(**{"current-context": ""}), 'current-context "" is not among the contexts'),
        (document(contexts=None), 'current-context "here" is not among the contexts'),
        (document(clusters=[]), 'context here: cluster "c" is not among the clusters'),
        (document(users=[]), 'context here: user "u" is not among the users'),
    ],
)
def test_what_is_wrong_is_one_line_that_names_file_and_key(write, content, reason):
    path = write(content)
    with pytest.raises(OperatorError) as caught:
        access_by(path, "")
    assert str(caught.value).startswith(f"--kubeconfig-file {path}: {reason}")
    assert "\n" not in str(caught.value)


def test_a_missing_kubeconfig_is_named(tmp_path):
    with pytest.raises(OperatorError, match=r"^--kubeconfig-file .*/gone: No such file or directory$"):
        access_by(str(tmp_path / "gone"), "")


def test_a_bad_url_names_its_flag():
    with pytest.raises(OperatorError, match=r"^--kube-api-url ftp://h: want https://HOST:PORT$"):
        access_by("", "ftp://h")


def test_a_pod_finds_the_server_by_its_environment(tmp_path, monkeypatch):
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text("x")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    access = in_cluster(tmp_path)
    assert str(access.server) == "https://[fd00::1]:443"
    assert (access.credentials, access.ca) == (Stored(token=tmp_path / "token"), tmp_path / "ca.crt")
    (tmp_path / "token").unlink()
    with pytest.raises(OperatorError, match=r"^in-cluster token .*/token: No such file or directory$"):
        in_cluster(tmp_path)


def test_outside_of_a_pod_the_flags_are_missing(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(OperatorError, match=r"^neither a kubeconfig nor a URL is given, and this is no pod"):
        in_cluster(Path("/nonexistent"))
