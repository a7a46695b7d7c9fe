"""The source that the settings name."""

from pathlib import Path

from controlloop.etcd import Etcd
from controlloop.etcd_access import Login, TlsFiles
from controlloop.etcd_settings import EtcdSettings
from proxy.config import FilesSettings, KubernetesSettings, SourceSettings
from proxy.sources import Source
from proxy.sources.etcd import EtcdSource
from proxy.sources.files import FilesSource


def connect(etcd: EtcdSettings) -> Etcd:
    """OperatorError names the flag of a certificate that cannot be used."""
    tls = TlsFiles(etcd.ca_file, etcd.cert_file, etcd.key_file)
    login = Login(etcd.username, etcd.password) if etcd.username else None
    return Etcd(etcd.endpoints, tls=tls, login=login)


def open_source(settings: SourceSettings) -> Source:
    match settings:
        case FilesSettings(manifests):
            return FilesSource(Path(manifests))
        case EtcdSettings():
            return EtcdSource(connect(settings), settings.prefix)
        case KubernetesSettings():
            # A proxy on etcd or files does without the memory that these take.
            from controlloop.kubernetes.client import ApiClient  # noqa: PLC0415
            from controlloop.kubernetes.kubeconfig import load_access  # noqa: PLC0415
            from proxy.sources.kubernetes import KubernetesSource  # noqa: PLC0415

            return KubernetesSource(ApiClient(load_access(settings.kubeconfig, settings.master)))
