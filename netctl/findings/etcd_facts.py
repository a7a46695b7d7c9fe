"""Asks an etcd what `netctl check etcd` judges. It only reads."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from aetcd import rpc

from controlloop.errors import OperatorError, UnavailableError
from controlloop.etcd import Etcd, refusal
from controlloop.etcd_access import Login, Metadata, Tls, TlsFiles
from controlloop.etcd_endpoint import Endpoint
from controlloop.etcd_settings import EtcdSettings
from netctl.findings.judge_etcd import EtcdFacts, Member

TIMEOUT_S = 3.0
EVERYTHING = rpc.RangeRequest(key=b"\0", range_end=b"\0", limit=1, keys_only=True)
"""Needs a permission for all keys there may be."""


def read_etcd(settings: EtcdSettings) -> EtcdFacts:
    """OperatorError for an endpoint or file that cannot be understood; a server that is away is a fact."""
    return asyncio.run(_read(settings))


async def _read(settings: EtcdSettings) -> EtcdFacts:
    prefix = settings.prefix.rstrip("/")
    files = TlsFiles(settings.ca_file, settings.cert_file, settings.key_file)
    login = Login(settings.username, settings.password) if settings.username else None
    tls, strangers_tls = Tls(files), Tls(TlsFiles(ca=settings.ca_file))
    members, everything, stranger = {}, False, False
    for url in settings.endpoints:
        members[url] = await member(Endpoint(url, tls), login)
        if members[url].version:
            everything |= await can_read(Endpoint(url, tls), EVERYTHING, login)
            config = rpc.RangeRequest(key=settings.config_key.encode())
            stranger |= await can_read(Endpoint(url, strangers_tls), config, None)
    key = Path(settings.key_file) if settings.key_file else None
    return EtcdFacts(
        prefix=prefix,
        members=members,
        stranger_reads=stranger,
        reads_everything=everything,
        key_file=settings.key_file,
        key_mode=key.stat().st_mode & 0o777 if key else 0,
        **(await contents(settings, prefix) if any(each.version for each in members.values()) else {}),
    )


async def member(endpoint: Endpoint, login: Login | None) -> Member:
    try:
        metadata = await metadata_for(endpoint, login)
        stub = rpc.MaintenanceStub(endpoint.channel)
        status = await stub.Status(rpc.StatusRequest(), timeout=TIMEOUT_S, metadata=metadata)
        return Member(status.version, await alarms(stub, metadata))
    except grpc.aio.AioRpcError as error:
        failure = refusal(f"{error.details()} ({error.code().name})")
        return Member(error=str(failure), is_refusal=isinstance(failure, OperatorError))
    except (OperatorError, UnavailableError) as error:
        return Member(error=str(error), is_refusal=isinstance(error, OperatorError))
    finally:
        await endpoint.close()


async def alarms(stub: Any, metadata: Metadata) -> tuple[str, ...]:
    """A login that may not ask sees none."""
    with suppress(grpc.aio.AioRpcError):
        request = rpc.AlarmRequest(action=rpc.AlarmRequest.GET)
        answer = await stub.Alarm(request, timeout=TIMEOUT_S, metadata=metadata)
        return tuple(rpc.AlarmType.Name(each.alarm) for each in answer.alarms)
    return ()


async def can_read(endpoint: Endpoint, request: Any, login: Login | None) -> bool:
    try:
        await endpoint.kv.Range(request, timeout=TIMEOUT_S, metadata=await metadata_for(endpoint, login))
    except (grpc.aio.AioRpcError, OperatorError, UnavailableError):
        return False
    finally:
        await endpoint.close()
    return True


async def metadata_for(endpoint: Endpoint, login: Login | None) -> Metadata:
    return await login.metadata(endpoint.auth, TIMEOUT_S) if login else ()


async def contents(settings: EtcdSettings, prefix: str) -> dict[str, Any]:
    """The configuration and the leases, as a node reads them."""
    etcd, folder = Etcd.at(settings), f"{prefix}/subnets/"
    try:
        config = await etcd.get(settings.config_key)
        records = await etcd.list(folder)
    except (OperatorError, UnavailableError) as error:
        return {"refusal": str(error)}
    finally:
        await etcd.close()
    found = {item.key.removeprefix(folder): item.value for item in records.items}
    return {"config": config.value if config else None, "records": found}
