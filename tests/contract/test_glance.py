"""What wireguard-go says over its socket, at a glance, and what the overlay makes of it."""

import asyncio
import os
import shutil
import subprocess
from itertools import count
from pathlib import Path

import pytest
from namespace import fresh_namespace

from netagent import glance
from netagent.backends.wg_text import render_peers
from netagent.glance import SOCKETS, Glances

if shutil.which("wg") is None or shutil.which("wireguard-go") is None or not Path("/dev/net/tun").exists():
    pytest.skip("needs wireguard-tools, wireguard-go and /dev/net/tun", allow_module_level=True)
if os.geteuid() != 0:
    pytest.skip("needs root for network namespaces", allow_module_level=True)

NETWORK = "10.5.{}.0/24"
devices = (f"wg{os.getpid()}-{number}" for number in count())


def wg(*words, given=""):
    return subprocess.run(["wg", *words], check=True, capture_output=True, text=True, input=given).stdout


KEYS = [wg("pubkey", given=wg("genkey")).strip() for _ in range(3)]


def put(device, number):
    peer = ["peer", KEYS[number], "allowed-ips", NETWORK.format(number), "endpoint", "127.0.0.1:9"]
    wg("set", device, *peer, "persistent-keepalive", "off")


@pytest.fixture
def device():
    """With three peers, where nobody lives."""
    name = next(devices)
    with fresh_namespace():
        subprocess.run(["wireguard-go", name], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wg("set", name, "private-key", "/dev/stdin", given=wg("genkey"))
        for number in range(len(KEYS)):
            put(name, number)
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield name
        # With its device goes wireguard-go, and with that the socket, which no namespace holds.
        subprocess.run(["ip", "link", "del", name], check=True)


async def test_it_is_the_same_as_long_as_nobody_changes_anything(device):
    glances = Glances()
    assert len({await glances.at(device) for _ in range(30)} | {await Glances().at(device)}) == 1


async def test_packets_do_not_change_it(device):
    glances = Glances()
    before = await glances.at(device)
    subprocess.run(["ip", "address", "add", "10.5.99.1/32", "dev", device], check=True)  # noqa: ASYNC221
    subprocess.run(["ip", "route", "add", NETWORK.format(1), "dev", device], check=True)  # noqa: ASYNC221
    subprocess.run(["ping", "-c1", "-W1", "10.5.1.1"], check=False, capture_output=True)  # noqa: ASYNC221
    assert any(line.split()[-1] != "0" for line in wg("show", device, "transfer").splitlines())
    assert await glances.at(device) == before


LISTEN = ["listen-port", "7776"]
CHANGES = {
    "peer gone": ["peer", KEYS[1], "remove"],
    "subnet gone": ["peer", KEYS[1], "allowed-ips", ""],
    "endpoint moved": ["peer", KEYS[1], "endpoint", "127.0.0.1:10"],
    "keepalive": ["peer", KEYS[1], "persistent-keepalive", "7"],
    "port": ["listen-port", "7777"],
}


@pytest.mark.parametrize("change", CHANGES)
async def test_what_somebody_changes_shows_and_so_does_putting_it_back(device, change):
    wg("set", device, *LISTEN)
    glances = Glances()
    before = await glances.at(device)
    wg("set", device, *CHANGES[change])
    assert await glances.at(device) not in {before, None}
    wg("set", device, *LISTEN)
    put(device, 1)
    assert await glances.at(device) == before


async def test_nobody_who_answers_is_no_glance(device):
    assert await Glances().at(f"{device}-x") is None


async def hang_up(reader, writer):
    writer.write(b"private_key=00\n")


async def keep_silent(reader, writer):
    await reader.read()


@pytest.mark.parametrize("answer", [hang_up, keep_silent])
async def test_half_an_answer_or_none_is_no_glance(answer, tmp_path, monkeypatch):
    monkeypatch.setattr(glance, "SOCKETS", tmp_path)
    monkeypatch.setattr(glance, "TIMEOUT_S", 0.05)
    ended = asyncio.Event()

    async def talk(reader, writer):
        await answer(reader, writer)
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with await asyncio.start_unix_server(talk, tmp_path / "wg.sock"):
        assert await Glances().at("wg") is None
        await ended.wait()


async def test_the_overlay_reads_the_device_only_when_it_looks_different(device):
    from netagent.kernel import OverlayKernel  # noqa: PLC0415 - not where the module is skipped

    kernel = OverlayKernel()
    tool, reads = kernel._wireguard, []
    desired = await tool.dump(device)
    read, tool.dump = tool.dump, lambda device: (reads.append(device), read(device))[1]
    assert [await kernel.untold(desired) for _ in range(3)] == [{}] * 3
    assert reads == [device]
    wg("set", device, "peer", KEYS[2], "remove")
    for _ in range(2):  # until it is mended, by whomever
        assert {key.kind for key in await kernel.untold(desired)} == {"wireguard peer", "wireguard subnet"}
    peers = [each for key, each in desired.items() if key.kind == "wireguard peer"]
    wg("addconf", device, "/dev/stdin", given=render_peers(peers))
    assert [await kernel.untold(desired) for _ in range(3)] == [{}] * 3
    assert reads == [device] * 4
    kernel.close()


async def test_what_is_put_right_while_the_overlay_reads_is_missed_when_it_goes_again(device):
    from netagent.kernel import OverlayKernel  # noqa: PLC0415 - not where the module is skipped

    kernel = OverlayKernel()
    read = kernel._wireguard.dump
    desired = await read(device)

    def dump(device):
        put(device, 2)
        return read(device)

    kernel._wireguard.dump = dump
    wg("set", device, "peer", KEYS[2], "remove")
    assert await kernel.untold(desired) == {}
    kernel._wireguard.dump = read
    wg("set", device, "peer", KEYS[2], "remove")
    assert {key.kind for key in await kernel.untold(desired)} == {"wireguard peer", "wireguard subnet"}
    kernel.close()


def test_the_socket_is_where_wg_looks_for_it(device):
    assert (SOCKETS / f"{device}.sock").is_socket()
