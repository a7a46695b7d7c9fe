"""netagent as a process: what it waits for, what it starts, what it leaves behind."""

import asyncio
import random
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from controlloop.command import NOT_INSTALLED, CommandError
from controlloop.errors import OperatorError, UnavailableError
from controlloop.etcd import Etcd
from controlloop.family import Family
from controlloop.goflags import Given
from controlloop.health import HealthServer, metrics_answer
from controlloop.http_server import Routes, TcpAddress
from controlloop.iptables.kernel import Variant, detect_variant
from controlloop.logs import Log
from controlloop.memory import map_large_blocks
from controlloop.reconcile import reconcile
from controlloop.runner import Backoff
from controlloop.runtime import only_one, runtime_directory
from netagent import subnet_file
from netagent.agent import RESYNC_S, Agent, Surroundings
from netagent.backends.backend import Node
from netagent.backends.vxlan import Vxlan
from netagent.backends.wireguard import Wireguard
from netagent.config import KubernetesSettings, Settings
from netagent.desired_page import desired
from netagent.firewall.desired import Mode, Policy
from netagent.firewall.firewall import Firewall
from netagent.firewall.nftables import Tunnel
from netagent.kernel import OverlayKernel
from netagent.metrics import families
from netagent.monitor import Monitor
from netagent.offload import ChecksumsOff
from netagent.probing.prober import Prober
from netagent.status import Status
from netagent.survey import survey
from subnet_alloc.codec import parse_config
from subnet_alloc.etcd import EtcdRegistry
from subnet_alloc.lessor import Lessor, RegistryLessor
from subnet_alloc.model import NetworkConfig
from subnet_alloc.registry import Leases

log = Log("netagent")


class Connection(Protocol):
    def unheard_s(self) -> float: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Store:
    """Where leases are kept."""

    leases: Leases
    lessor: Lessor
    connection: Connection


async def serve(settings: Settings) -> None:
    """Run until cancelled. Nothing is taken back at the end: pods keep their network while we are away."""
    map_large_blocks()
    with only_one(settings.instance.program, "; one for another overlay needs an --instance of its own"):
        settings = await on_own_node(settings)
        status = Status(settings.node_name)
        store = open_store(settings)
        status.unheard_s = store.connection.unheard_s
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(health_server(settings, status).run())
                if settings.probe:
                    status.prober = Prober(lambda: status.roster())  # noqa: PLW0108 - the agent sets it later
                    tasks.create_task(status.prober.run())
                tasks.create_task(work(settings, store, status))
        finally:
            await store.connection.close()


async def on_own_node(settings: Settings) -> Settings:
    """With the node's name in Kubernetes, where only our Pod tells it."""
    flags = settings.kubernetes
    if flags is None or not flags.own_pod:
        return settings
    from controlloop.kubernetes.client import ApiClient  # noqa: PLC0415 - an agent on etcd does without
    from controlloop.kubernetes.kubeconfig import load_access  # noqa: PLC0415
    from netagent.own_pod import node_of  # noqa: PLC0415

    client = ApiClient(load_access(*access_flags(flags)))
    try:
        return replace(settings, node_name=await node_of(flags.own_pod, client))
    finally:
        await client.close()


def open_store(settings: Settings) -> Store:
    return etcd_store(settings) if settings.kubernetes is None else kubernetes_store(settings, settings.kubernetes)


def etcd_store(settings: Settings) -> Store:
    etcd = Etcd.at(settings.etcd)
    registry = EtcdRegistry(etcd, settings.etcd.prefix)
    previous = partial(subnet_file.read_subnets, Path(settings.subnet_file))
    return Store(registry, RegistryLessor(registry, previous, random.choice, settings.renew_margin_s), etcd)


def access_flags(flags: KubernetesSettings) -> tuple[Given, Given]:
    return Given("--kubeconfig-file", flags.kubeconfig_file), Given("--kube-api-url", flags.api_url)


def kubernetes_store(settings: Settings, flags: KubernetesSettings) -> Store:
    # An agent on etcd does without the memory that these take.
    from controlloop.kubernetes.client import ApiClient  # noqa: PLC0415
    from controlloop.kubernetes.kubeconfig import load_access  # noqa: PLC0415
    from subnet_alloc.annotations import Annotations  # noqa: PLC0415
    from subnet_alloc.kubernetes import KubernetesLessor, KubernetesRegistry  # noqa: PLC0415

    client = ApiClient(load_access(*access_flags(flags)))
    annotations = Annotations.parse(flags.annotation_prefix)
    registry = KubernetesRegistry(client, annotations, settings.node_name, Path(flags.net_config_path))
    lessor = KubernetesLessor(client, annotations, settings.node_name, set_condition=flags.set_node_network_unavailable)
    return Store(registry, lessor, client)


def health_server(settings: Settings, status: Status) -> HealthServer:
    routes: Routes = {
        **status.routes(),
        "/metrics": lambda: metrics_answer(families(status)),
        "/desired": lambda: desired(status, settings.instance),
    }
    tcp = TcpAddress(str(settings.healthz_ip), settings.healthz_port, "--healthz-ip") if settings.healthz_port else None
    return HealthServer(runtime_directory() / f"{settings.instance.program}.sock", routes, tcp)


async def work(settings: Settings, store: Store, status: Status) -> None:
    config = await wait_for_config(store.leases, settings.config_key, status)
    settings = await with_wanted_public_ip(settings, store.lessor, status)
    node = await survey(settings, config)
    status.devices = node.backend.devices(node.underlay)
    kernel = OverlayKernel(settings.instance, status.devices)
    monitor = Monitor(ignore_port=kernel.port)
    firewall = Firewall(policy(settings, config, node))
    log.info("starting", node=node.name, underlay=next(iter(node.underlay.values())), devices=" ".join(status.devices))
    try:
        await Agent(
            Surroundings(
                node,
                config,
                store.leases,
                store.lessor,
                kernel,
                Path(settings.subnet_file),
                ip_masq=settings.firewall.ip_masq,
                survey=partial(survey, staying_on(node, settings), config),
                monitor=monitor,
                untold=kernel.untold if isinstance(node.backend, Wireguard) else None,
                firewall=firewall,
                firewall_resync_s=await firewall_resync_s(settings, config),
                reconnect=store.connection.close,
                settle=ChecksumsOff(status.devices if settings.tx_checksum_off else ()).settle,
            ),
            status,
        ).run()
    finally:
        firewall.close()
        monitor.close()
        kernel.close()


async def firewall_resync_s(settings: Settings, config: NetworkConfig) -> float:
    """--iptables-resync is for legacy iptables alone: of all other rules the kernel tells when they change."""
    if config.enable_nftables:
        return RESYNC_S
    try:
        is_legacy = await detect_variant(Family.V4) is Variant.LEGACY
    except CommandError:
        return RESYNC_S  # the firewall itself says what is missing
    return settings.firewall.resync_s if is_legacy else RESYNC_S


def policy(settings: Settings, config: NetworkConfig, node: Node) -> Policy:
    backend = node.backend
    tunnel = Tunnel(backend.port, backend.vni) if isinstance(backend, Vxlan) else None
    mode = Mode.NFTABLES if config.enable_nftables else Mode.IPTABLES
    return Policy(settings.firewall, mode, tunnel, settings.instance)


def staying_on(node: Node, settings: Settings) -> Settings:
    """With these a later survey finds the same interface again: a default route that moves, to a VPN for example, does
    not take the overlay with it.
    """
    if settings.interface.is_asked or settings.interface.public_ip:
        return settings
    names = tuple({underlay.interface for underlay in node.underlay.values()})
    return replace(settings, interface=replace(settings.interface, names=names))


async def with_wanted_public_ip(settings: Settings, lessor: Lessor, status: Status) -> Settings:
    """An administrator may write --public-ip and --public-ipv6 on the Node; the flags win."""
    backoff = Backoff()
    while not settings.interface.public_ip:
        try:
            wanted = await lessor.wanted_public_ip()
            return replace(settings, interface=replace(settings.interface, public_ip=wanted))
        except UnavailableError as error:
            wait_s = backoff.next()
            log.warning("waiting for the own node", error=error, retry_in_s=round(wait_s, 1))
            status.turn()
            await asyncio.sleep(wait_s)
    return settings


async def wait_for_config(registry: Leases, key: str, status: Status) -> NetworkConfig:
    """OperatorError when it cannot be understood; while it is missing or out of reach, wait."""
    backoff = Backoff()
    while True:
        try:
            raw = await registry.network_config()
            if raw is not None:
                return parse_config(raw)
            reason = "the key does not exist"
        except UnavailableError as error:
            reason = str(error)
        except OperatorError as error:
            raise OperatorError(f"{key}: {error}") from error
        wait_s = backoff.next()
        log.warning("waiting for the network configuration", key=key, reason=reason, retry_in_s=round(wait_s, 1))
        status.turn()
        await asyncio.sleep(wait_s)


async def cleanup(settings: Settings) -> None:
    """Remove what is ours from the kernel, and the subnet file. Needs no etcd, and may be repeated."""
    kernel = OverlayKernel(settings.instance)
    try:
        await reconcile(dict, kernel)
        await Firewall(Policy(settings.firewall, Mode.IPTABLES, None, settings.instance)).cleanup()
    except CommandError as error:
        # With a program that is not installed nothing was written.
        if error.returncode != NOT_INSTALLED:
            raise OperatorError(f"--cleanup: {error}") from error
    except PermissionError as error:
        raise OperatorError(f"--cleanup: {error.strerror}; this needs CAP_NET_ADMIN") from error
    finally:
        kernel.close()
    subnet_file.remove(Path(settings.subnet_file))
    log.info("cleaned up", subnet_file=settings.subnet_file)
