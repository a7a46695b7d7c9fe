"""The source that the settings name, and what comes with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from controlloop.etcd_settings import EtcdSettings
from proxy.config import FilesSettings, KubernetesSettings, Settings
from proxy.node_watch import NodeApi
from proxy.sources import Source

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
            return _open_files(Path(manifests))
        case EtcdSettings() as etcd:
            return _open_etcd(etcd)
        case KubernetesSettings() as kubernetes:
            return _open_kubernetes(kubernetes, settings.node_name)


# Each proxy does without the time and the memory that the sources of others take.


def _open_files(manifests: Path) -> Opened:
    from proxy.sources.files import FilesSource  # noqa: PLC0415

    source = FilesSource(manifests)
    source.check()
    return Opened(source)


def _open_etcd(settings: EtcdSettings) -> Opened:
    from controlloop.etcd import Etcd  # noqa: PLC0415
    from proxy.sources.etcd import EtcdSource  # noqa: PLC0415

    return Opened(EtcdSource(Etcd.at(settings), settings.prefix))


def _open_kubernetes(settings: KubernetesSettings, node_name: str) -> Opened:
    from controlloop.kubernetes import client, kubeconfig  # noqa: PLC0415
    from proxy import events, node_api  # noqa: PLC0415
    from proxy.sources.kubernetes import KubernetesSource  # noqa: PLC0415

    api = client.ApiClient(kubeconfig.load_access(settings.kubeconfig, settings.master))
    return Opened(KubernetesSource(api), node_api.NodeApi(api, node_name), events.Events(api, node_name))
