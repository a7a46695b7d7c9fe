"""netagent as a process: what it waits for, what it starts, what it leaves behind."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from controlloop.errors import OperatorError, UnavailableError
from controlloop.etcd import Etcd
from controlloop.etcd_access import Login, TlsFiles
from controlloop.health import HealthServer, TcpAddress, metrics_answer
from controlloop.logs import Log
from controlloop.reconcile import reconcile
from controlloop.runner import Backoff
from controlloop.runtime import runtime_directory
from netagent import subnet_file
from netagent.agent import Agent, Surroundings
from netagent.backends.backend import Node
from netagent.config import EtcdSettings, Settings
from netagent.kernel import OverlayKernel
from netagent.metrics import families
from netagent.monitor import Monitor
from netagent.offload import ChecksumsOff
from netagent.probing.prober import Prober
from netagent.status import Status
from netagent.survey import survey
from subnet_alloc.codec import parse_config
from subnet_alloc.etcd import EtcdRegistry
from subnet_alloc.model import NetworkConfig
from subnet_alloc.registry import Registry

log = Log("netagent")

SOCKET = "netagent.sock"


async def serve(settings: Settings) -> None:
    """Run until cancelled. Nothing is taken back at the end: pods keep their network while we are away."""
    status = Status(settings.node_name)
    etcd = connect(settings.etcd)
    status.unheard_s = etcd.unheard_s
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(health_server(settings, status).run())
            if settings.probe:
                status.prober = Prober(lambda: status.roster())  # noqa: PLW0108 - the agent sets it later
                tasks.create_task(status.prober.run())
            tasks.create_task(work(settings, EtcdRegistry(etcd, settings.etcd.prefix), status, etcd.close))
    finally:
        await etcd.close()


def health_server(settings: Settings, status: Status) -> HealthServer:
    routes = {**status.routes(), "/metrics": lambda: metrics_answer(families(status))}
    tcp = TcpAddress(str(settings.healthz_ip), settings.healthz_port, "--healthz-ip") if settings.healthz_port else None
    return HealthServer(runtime_directory() / SOCKET, routes, tcp)


def connect(etcd: EtcdSettings) -> Etcd:
    tls = TlsFiles(etcd.ca_file, etcd.cert_file, etcd.key_file)
    login = Login(etcd.username, etcd.password) if etcd.username else None
    return Etcd(etcd.endpoints, tls=tls, login=login)


async def work(
    settings: Settings, registry: Registry, status: Status, reconnect: Callable[[], Awaitable[None]]
) -> None:
    config = await wait_for_config(registry, settings.config_key, status)
    node = await survey(settings, config)
    status.devices = node.backend.devices(node.underlay)
    kernel = OverlayKernel()
    monitor = Monitor(ignore_port=kernel.port)
    log.info("starting", node=node.name, underlay=next(iter(node.underlay.values())), devices=" ".join(status.devices))
    try:
        await Agent(
            Surroundings(
                node,
                config,
                registry,
                kernel,
                Path(settings.subnet_file),
                survey=partial(survey, staying_on(node, settings), config),
                monitor=monitor,
                reconnect=reconnect,
                settle=ChecksumsOff(status.devices if settings.tx_checksum_off else ()).settle,
            ),
            status,
        ).run()
    finally:
        monitor.close()
        kernel.close()


def staying_on(node: Node, settings: Settings) -> Settings:
    """With these a later survey finds the same interface again: a default route that moves, to a VPN for example, does
    not take the overlay with it.
    """
    if settings.interface.is_asked or settings.interface.public_ip:
        return settings
    names = tuple({underlay.interface for underlay in node.underlay.values()})
    return replace(settings, interface=replace(settings.interface, names=names))


async def wait_for_config(registry: Registry, key: str, status: Status) -> NetworkConfig:
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
    kernel = OverlayKernel()
    try:
        await reconcile(dict, kernel)
    finally:
        kernel.close()
    subnet_file.remove(Path(settings.subnet_file))
    log.info("cleaned up", subnet_file=settings.subnet_file)
