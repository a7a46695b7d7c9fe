import os

import pytest
from builders import json, make_service

from proxy.sources.manifest_directory import ManifestDirectory


def service(name, address="10.96.0.10"):
    return json(make_service(name=name, cluster_ips=[address]))


def write(path, content):
    path.write_bytes(content)
    # Old enough that the next write will have another mtime, whatever the kernel's clock.
    os.utime(path, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns - 10**9))


def seen(batch):
    """`name -> address`, None for a deleted object."""
    return {
        update.name.name: update.body and update.body.decode().partition('"clusterIP":"')[2].partition('"')[0]
        for update in batch.updates
    }


def names(batch):
    return [
        skipped.name.rpartition("/")[2] if "Service" not in skipped.name else skipped.name for skipped in batch.skipped
    ]


@pytest.fixture
def manifests(tmp_path):
    return ManifestDirectory(tmp_path)


def test_the_first_scan_lists_everything_and_the_next_only_changes(tmp_path, manifests):
    write(tmp_path / "a.yaml", service("a"))
    write(tmp_path / "b.json", service("b"))
    write(tmp_path / "c.txt", service("c"))
    write(tmp_path / ".d.yaml", service("d"))
    first = manifests.scan(listed=True)
    assert (seen(first), first.listed) == ({"a": "10.96.0.10", "b": "10.96.0.10"}, True)
    assert manifests.scan() is None
    write(tmp_path / "a.yaml", service("a", "10.96.0.11"))
    write(tmp_path / "e.yml", service("e"))
    assert seen(manifests.scan()) == {"a": "10.96.0.11", "e": "10.96.0.10"}
    (tmp_path / "b.json").unlink()
    assert manifests.has_lost_files()
    assert seen(manifests.scan()) == {"b": None}
    assert not manifests.has_lost_files()


def test_a_file_that_was_only_touched_changes_nothing(tmp_path, manifests):
    write(tmp_path / "a.yaml", service("a"))
    manifests.scan(listed=True)
    (tmp_path / "a.yaml").touch()
    assert manifests.scan() is None


def test_a_rewrite_within_one_tick_of_the_clock_is_seen(tmp_path, manifests):
    """Same size, same inode, same mtime: only that the file was young tells that it may have changed."""
    path = tmp_path / "a.yaml"
    path.write_bytes(service("a", "10.96.0.11"))
    manifests.scan(listed=True)
    before = path.stat().st_mtime_ns
    path.write_bytes(service("a", "10.96.0.12"))
    os.utime(path, ns=(before, before))
    assert seen(manifests.scan()) == {"a": "10.96.0.12"}


def test_a_file_that_breaks_keeps_its_objects_and_is_named_until_it_is_repaired(tmp_path, manifests):
    path = tmp_path / "a.yaml"
    write(path, service("a"))
    manifests.scan(listed=True)
    write(path, b"a: b: c")
    batch = manifests.scan()
    assert (seen(batch), str(batch.skipped[0])) == (
        {},
        f"{path}: line 1: mapping values are not allowed in this context",
    )
    assert manifests.scan() is None
    write(path, service("a", "10.96.0.11"))
    batch = manifests.scan()
    assert (seen(batch), batch.skipped) == ({"a": "10.96.0.11"}, ())


def test_a_link_to_nowhere_keeps_the_objects_and_comes_back_unchanged(tmp_path, manifests):
    target = tmp_path / "target"
    write(target, service("a"))
    (tmp_path / "a.yaml").symlink_to(target)
    manifests.scan(listed=True)
    target.rename(tmp_path / "away")
    batch = manifests.scan()
    assert (seen(batch), batch.skipped[0].reason) == ({}, "No such file or directory")
    (tmp_path / "away").rename(target)
    batch = manifests.scan()
    assert (seen(batch), batch.skipped) == ({}, ())


def test_what_is_no_regular_file_is_named_and_not_opened(tmp_path, manifests):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    batch = manifests.scan(listed=True)
    assert {skipped.reason for skipped in batch.skipped} == {"not a regular file"}
    assert len(batch.skipped) == 2


def test_of_two_files_with_one_object_the_first_counts(tmp_path, manifests):
    write(tmp_path / "b.yaml", service("web", "10.96.0.2"))
    manifests.scan(listed=True)
    write(tmp_path / "a.yaml", service("web", "10.96.0.1"))
    batch = manifests.scan()
    assert (seen(batch), names(batch)) == ({"web": "10.96.0.1"}, [f"{tmp_path}/b.yaml Service default/web"])
    write(tmp_path / "b.yaml", service("web", "10.96.0.3"))
    assert manifests.scan() is None
    (tmp_path / "a.yaml").unlink()
    batch = manifests.scan()
    assert (seen(batch), batch.skipped) == ({"web": "10.96.0.3"}, ())


def test_an_object_that_moves_between_files_does_not_flap(tmp_path, manifests):
    write(tmp_path / "a.yaml", service("web"))
    manifests.scan(listed=True)
    (tmp_path / "a.yaml").rename(tmp_path / "z.yaml")
    assert manifests.scan() is None


def test_a_directory_that_is_gone_is_an_error_and_loses_nothing(tmp_path):
    directory = tmp_path / "m"
    directory.mkdir()
    write(directory / "a.yaml", service("a"))
    manifests = ManifestDirectory(directory)
    manifests.scan(listed=True)
    directory.rename(tmp_path / "away")
    for look in (manifests.scan, manifests.has_lost_files):
        with pytest.raises(FileNotFoundError):
            look()
    (tmp_path / "away").rename(directory)
    assert manifests.scan() is None
