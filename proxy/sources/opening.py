"""The source that the settings name, and what comes with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from controlloop.etcd import Etcd
from controlloop.etcd_settings import EtcdSettings
from proxy.config import FilesSettings, KubernetesSettings, Settings
from proxy.node_watch import NodeApi
from proxy.sources import Source
from proxy.sources.etcd import EtcdSource
from proxy.sources.files import FilesSource

if TYPE_CHECKING:
    from proxy.events import Events


@dataclass(frozen=True, slots=True)
class Opened:
    source: Source
    nodes: NodeApi | None = None
    """Where the own Node and ServiceCIDRs are; None with a source that has none."""
    events: "Events | None" = None
    """Where Events go to."""


def open_source(settings: Settings) -> Opened:
    """OperatorError names the flag or field, and the file, that cannot be used."""
    match settings.source:
        case FilesSettings(manifests):
            source = FilesSource(Path(manifests))
            source.check()
            return Opened(source)
        case EtcdSettings() as etcd:
            return Opened(EtcdSource(Etcd.at(etcd), etcd.prefix))
        case KubernetesSettings() as kubernetes:
            return _open_kubernetes(kubernetes, settings.node_name)


def _open_kubernetes(settings: KubernetesSettings, node_name: str) -> Opened:
    # A proxy on etcd or files does without the memory that these take.
    from controlloop.kubernetes import client, kubeconfig  # noqa: PLC0415
    from proxy import events, node_api  # noqa: PLC0415
    from proxy.sources.kubernetes import KubernetesSource  # noqa: PLC0415

    api = client.ApiClient(kubeconfig.load_access(settings.kubeconfig, settings.master))
    return Opened(KubernetesSource(api), node_api.NodeApi(api, node_name), events.Events(api, node_name))
