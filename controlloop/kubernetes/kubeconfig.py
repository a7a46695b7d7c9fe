"""From a kubeconfig, a URL or the pod we run in to an Access (kubernetes.io: kubeconfig v1).

What is wrong in a kubeconfig is one OperatorError that names the flag or field, the file and the key.
"""

import base64
import binascii
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from controlloop.errors import OperatorError
from controlloop.goflags import Given
from controlloop.kubernetes.access import Access, parse_server
from controlloop.kubernetes.credentials import EXEC_API, Content, Credentials, Plugin, Stored
from controlloop.logs import Log
from controlloop.yaml_documents import YamlError, documents

log = Log("kubernetes")

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class _Cluster(msgspec.Struct, rename="kebab"):
    server: str = ""
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""


class _EnvironmentVariable(msgspec.Struct):
    name: str
    value: str


class _Exec(msgspec.Struct, rename="camel"):
    api_version: str
    command: str
    args: list[str] | None = None
    env: list[_EnvironmentVariable] | None = None
    interactive_mode: str = "Never"
    provide_cluster_info: bool = False


class _User(msgspec.Struct, rename="kebab"):
    token: str = ""
    token_file: str = msgspec.field(default="", name="tokenFile")
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    username: str = ""
    auth_provider: Any = None
    exec: _Exec | None = None


class _Context(msgspec.Struct):
    cluster: str = ""
    user: str = ""


class _NamedCluster(msgspec.Struct):
    name: str
    cluster: _Cluster


class _NamedUser(msgspec.Struct):
    name: str
    user: _User


class _NamedContext(msgspec.Struct):
    name: str
    context: _Context


class _Kubeconfig(msgspec.Struct, rename="kebab"):
    current_context: str = ""
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None


@dataclass(frozen=True, slots=True)
class _File:
    """A kubeconfig, and the flag or field that names it."""

    source: str
    path: Path

    def __str__(self) -> str:
        return f"{self.source} {self.path}"


Named = TypeVar("Named", _NamedCluster, _NamedUser, _NamedContext)


def load_access(kubeconfig: Given, api_url: Given) -> Access:
    """What the two mean; both empty: the pod's service account. The URL wins over the file's (flannel, kube-proxy)."""
    if kubeconfig.text:
        return _from_file(_File(kubeconfig.source, Path(kubeconfig.text)), api_url)
    if api_url.text:
        return Access(parse_server(api_url.source, api_url.text), Stored())
    return in_cluster(SERVICE_ACCOUNT)


def in_cluster(account: Path) -> Access:
    """The API server as a pod sees it. The token is read again for each connection: the kubelet renews the file."""
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
    if not host or not port:
        raise OperatorError("neither a kubeconfig nor a URL is given, and this is no pod of a cluster")
    for name in ("token", "ca.crt"):
        _readable(f"in-cluster {name}", account / name)
    server = parse_server("KUBERNETES_SERVICE_HOST", f"https://{f'[{host}]' if ':' in host else host}:{port}")
    return Access(server, Stored(token=account / "token"), ca=account / "ca.crt")


def _from_file(file: _File, api_url: Given) -> Access:
    config = _parse(file)
    wanted = config.current_context
    context = _find(file, "contexts", config.contexts or [], wanted, "current-context").context
    cluster = _find(file, "clusters", config.clusters or [], context.cluster, f"context {wanted}: cluster").cluster
    # A context without user is one whose server asks nobody who he is.
    users = config.users or []
    user = _find(file, "users", users, context.user, f"context {wanted}: user").user if context.user else _User()
    where = f"{file}: cluster {context.cluster}"
    if cluster.proxy_url:
        raise OperatorError(f"{where}: proxy-url {cluster.proxy_url} is not supported")
    if cluster.insecure_skip_tls_verify:
        log.warning("the API server's certificate is not checked", file=file.path, key="insecure-skip-tls-verify")
    return Access(
        parse_server(api_url.source, api_url.text)
        if api_url.text
        else parse_server(f"{where}: server", cluster.server),
        _credentials(file.path, f"{file}: user {context.user}", user, cluster),
        ca=_ca(file.path, where, cluster) or None,
        verify=not cluster.insecure_skip_tls_verify,
        tls_name=cluster.tls_server_name,
    )


def _ca(path: Path, where: str, cluster: _Cluster) -> Content:
    inline, name = cluster.certificate_authority_data, cluster.certificate_authority
    return _content(path, f"{where}: certificate-authority", inline, name)


def _parse(file: _File) -> _Kubeconfig:
    try:
        return msgspec.convert(next(documents(file.path.read_bytes()), None), _Kubeconfig)
    except OSError as error:
        raise OperatorError(f"{file}: {error.strerror}") from error
    except YamlError as error:
        raise OperatorError(f"{file}: no YAML: {error}") from error
    except msgspec.ValidationError as error:
        raise OperatorError(f"{file}: {error}") from error


def _find(file: _File, key: str, named: Sequence[Named], name: str, asked_by: str) -> Named:
    for one in named:
        if one.name == name:
            return one
    raise OperatorError(f'{file}: {asked_by} "{name}" is not among the {key}')


def _credentials(path: Path, where: str, user: _User, cluster: _Cluster) -> Credentials:
    for key, value in (("auth-provider", user.auth_provider), ("username", user.username)):
        if value:
            raise OperatorError(f"{where}: {key} is not supported; use a token, a client certificate or exec")
    if user.exec is not None:
        return _plugin(path, f"{where}: exec", user.exec, cluster)
    # A file wins over the text beside it for tokens, the text over the file for certificates (client-go).
    token: Content = _file(path, f"{where}: tokenFile", user.token_file) or user.token.encode()
    return Stored(
        token,
        _content(path, f"{where}: client-certificate", user.client_certificate_data, user.client_certificate),
        _content(path, f"{where}: client-key", user.client_key_data, user.client_key),
    )


def _plugin(path: Path, where: str, plugin: _Exec, cluster: _Cluster) -> Plugin:
    if plugin.api_version != EXEC_API:
        raise OperatorError(f"{where}: apiVersion {plugin.api_version} is not {EXEC_API}")
    if plugin.interactive_mode == "Always":
        raise OperatorError(f"{where}: interactiveMode Always: there is nobody to ask")
    # A path is meant as seen from the kubeconfig, a name as found in PATH.
    command = str(path.parent.absolute() / plugin.command) if "/" in plugin.command else plugin.command
    environment = {variable.name: variable.value for variable in plugin.env or ()}
    told = _told(cluster) if plugin.provide_cluster_info else None
    return Plugin([command, *(plugin.args or ())], environment, told)


def _told(cluster: _Cluster) -> dict[str, Any]:
    return {
        "server": cluster.server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "certificate-authority-data": cluster.certificate_authority_data,
    }


def _content(path: Path, where: str, inline: str, name: str) -> Content:
    if not inline:
        return _file(path, where, name)
    try:
        return base64.b64decode(inline, validate=True)
    except binascii.Error as error:
        raise OperatorError(f"{where}-data: no base64: {error}") from error


def _file(path: Path, where: str, name: str) -> Content:
    return _readable(where, path.parent / name) if name else b""


def _readable(where: str, path: Path) -> Path:
    try:
        path.read_bytes()
    except OSError as error:
        raise OperatorError(f"{where} {path}: {error.strerror}") from error
    return path
