"""The waking half of the files source: what the kernel tells about a directory, and what it does not."""

import asyncio
import shutil
from contextlib import asynccontextmanager

import pytest
from builders import json, make_service
from deadline import PATIENCE_S

from controlloop.errors import OperatorError
from proxy.sources import files
from proxy.sources.files import FilesSource


@pytest.fixture(autouse=True)
def _only_inotify_wakes(monkeypatch):
    monkeypatch.setattr(files, "RESCAN_S", 60.0)


@pytest.fixture
def directory(tmp_path):
    directory = tmp_path / "manifests"
    directory.mkdir()
    return directory


class Followed:
    """The names that a source has given out, with their addresses."""

    def __init__(self, source):
        self.services = {}
        self.batches = []
        self._iterator = source.batches()
        self._moved = asyncio.Event()

    async def follow(self):
        async for batch in self._iterator:
            if batch.listed:
                self.services.clear()
            for update in batch.updates:
                self.services.pop(update.name.name, None)
                if update.body is not None:
                    text = update.body.decode()
                    self.services[update.name.name] = text.partition('"clusterIP":"')[2].partition('"')[0]
            self.batches.append(batch)
            self._moved.set()

    async def becomes(self, services):
        async with asyncio.timeout(PATIENCE_S):
            while not self.batches or self.services != services:
                self._moved.clear()
                await self._moved.wait()

    async def close(self):
        await self._iterator.aclose()


@asynccontextmanager
async def following(directory):
    followed = Followed(FilesSource(directory))
    task = asyncio.create_task(followed.follow())
    try:
        yield followed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await followed.close()


def write(path, address="10.96.0.10", name="web"):
    path.write_bytes(json(make_service(name=name, cluster_ips=[address])))


async def test_a_missing_directory_at_the_start_is_for_the_operator(tmp_path):
    with pytest.raises(OperatorError, match=f"^--manifests {tmp_path}/absent: No such file or directory$"):
        await anext(FilesSource(tmp_path / "absent").batches())
    (tmp_path / "file").touch()
    with pytest.raises(OperatorError, match="Not a directory"):
        await anext(FilesSource(tmp_path / "file").batches())


async def test_an_empty_directory_lists_nothing_and_then_fills(directory):
    async with following(directory) as followed:
        await followed.becomes({})
        write(directory / "a.yaml")
        await followed.becomes({"web": "10.96.0.10"})
        assert [batch.listed for batch in followed.batches[:2]] == [True, False]


async def test_a_file_rewritten_in_place_and_one_renamed_over_it(directory, tmp_path):
    write(directory / "a.yaml", "10.96.0.1")
    async with following(directory) as followed:
        await followed.becomes({"web": "10.96.0.1"})
        write(directory / "a.yaml", "10.96.0.2")
        await followed.becomes({"web": "10.96.0.2"})
        write(tmp_path / "new", "10.96.0.3")
        (tmp_path / "new").rename(directory / "a.yaml")
        await followed.becomes({"web": "10.96.0.3"})
        (directory / "a.yaml").unlink()
        await followed.becomes({})


async def test_a_swapped_link_changes_every_file_behind_it(directory):
    """As the kubelet mounts a ConfigMap: the files are links through `..data`, and only that link changes."""
    for version in ("1", "2"):
        (directory / f"..{version}").mkdir()
        write(directory / f"..{version}" / "a.yaml", f"10.96.0.{version}")
    (directory / "..data").symlink_to("..1")
    (directory / "a.yaml").symlink_to("..data/a.yaml")
    async with following(directory) as followed:
        await followed.becomes({"web": "10.96.0.1"})
        (directory / "..next").symlink_to("..2")
        (directory / "..next").rename(directory / "..data")
        await followed.becomes({"web": "10.96.0.2"})


async def test_a_directory_that_is_itself_a_swapped_link(tmp_path):
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        write(tmp_path / version / "a.yaml", f"10.96.0.{version}")
    (tmp_path / "current").symlink_to("1")
    async with following(tmp_path / "current") as followed:
        await followed.becomes({"web": "10.96.0.1"})
        (tmp_path / "next").symlink_to("2")
        (tmp_path / "next").rename(tmp_path / "current")
        await followed.becomes({"web": "10.96.0.2"})
        write(tmp_path / "2" / "a.yaml", "10.96.0.3")
        await followed.becomes({"web": "10.96.0.3"})


async def test_a_deleted_directory_keeps_its_objects_until_it_returns(directory):
    write(directory / "a.yaml", "10.96.0.1")
    async with following(directory) as followed:
        await followed.becomes({"web": "10.96.0.1"})
        shutil.rmtree(directory)
        directory.mkdir()
        write(directory / "b.yaml", "10.96.0.2", name="other")
        await followed.becomes({"other": "10.96.0.2"})
        write(directory / "b.yaml", "10.96.0.3", name="other")
        await followed.becomes({"other": "10.96.0.3"})


async def test_a_directory_that_stays_away_changes_nothing(directory, caplog):
    write(directory / "a.yaml", "10.96.0.1")
    async with following(directory) as followed:
        await followed.becomes({"web": "10.96.0.1"})
        shutil.rmtree(directory)
        async with asyncio.timeout(PATIENCE_S):
            while "manifests are away, their objects stay" not in caplog.messages:  # noqa: ASYNC110 - a log wakes nobody
                await asyncio.sleep(0.005)
        assert len(followed.batches) == 1


async def test_a_file_that_is_removed_and_written_again_does_not_flap(directory):
    write(directory / "a.yaml", "10.96.0.1")
    async with following(directory) as followed:
        await followed.becomes({"web": "10.96.0.1"})
        (directory / "a.yaml").unlink()
        await asyncio.sleep(0)
        write(directory / "a.yaml", "10.96.0.2")
        await followed.becomes({"web": "10.96.0.2"})
        assert all(update.body is not None for batch in followed.batches for update in batch.updates)


async def test_a_change_that_nobody_tells_of_is_found_by_the_rescan(directory, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "RESCAN_S", 0.05)
    write(tmp_path / "elsewhere", "10.96.0.1")
    (directory / "a.yaml").symlink_to(tmp_path / "elsewhere")
    async with following(directory) as followed:
        await followed.becomes({"web": "10.96.0.1"})
        write(tmp_path / "elsewhere", "10.96.0.2")
        await followed.becomes({"web": "10.96.0.2"})


async def test_neighbors_of_the_directory_wake_nobody(directory, tmp_path, monkeypatch):
    scans = 0
    scan = files.ManifestDirectory.scan

    def counted(self, **options):
        nonlocal scans
        scans += 1
        return scan(self, **options)

    monkeypatch.setattr(files.ManifestDirectory, "scan", counted)
    async with following(directory) as followed:
        await followed.becomes({})
        before = scans
        for number in range(20):
            (tmp_path / f"neighbor-{number}").touch()
        write(directory / "a.yaml")
        await followed.becomes({"web": "10.96.0.10"})
        assert scans - before <= 3
