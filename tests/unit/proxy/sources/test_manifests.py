from pathlib import Path

import msgspec
import pytest
import yaml
from builders import json, make_endpoint_slice, make_service

from proxy.objects import Kind, ObjectName
from proxy.sources.manifests import ManifestError, read_manifest

WEB = (Kind.SERVICE, ObjectName("default", "web"))
SLICE = (Kind.ENDPOINT_SLICE, ObjectName("default", "web-1"))


def read(*documents, name="/m/a.yaml"):
    return read_manifest(Path(name), yaml.safe_dump_all(documents).encode())


def test_objects_of_many_documents_and_lists():
    listed = {"apiVersion": "v1", "kind": "List", "items": [make_service(namespace="prod"), make_endpoint_slice()]}
    manifest = read(make_service(), listed, None)
    assert manifest.objects.keys() == {WEB, (Kind.SERVICE, ObjectName("prod", "web")), SLICE}
    assert msgspec.json.decode(manifest.objects[SLICE]) == make_endpoint_slice()
    assert manifest.skipped == []


def test_json_is_read_too():
    listed = {"apiVersion": "v1", "kind": "List", "items": [make_service()]}
    assert read_manifest(Path("a.json"), json(listed)).objects.keys() == {WEB}


def test_a_missing_namespace_is_default():
    made = make_service()
    del made["metadata"]["namespace"]
    assert read(made).objects.keys() == {WEB}


def test_other_kinds_and_other_versions_are_ignored():
    old = make_endpoint_slice() | {"apiVersion": "discovery.k8s.io/v1beta1"}
    manifest = read({"apiVersion": "v1", "kind": "ConfigMap"}, old, {"kind": None}, {"items": 1})
    assert (manifest.objects, manifest.skipped) == ({}, [])


@pytest.mark.parametrize("document", [["a"], "text", 1])
def test_a_document_that_is_no_object_is_named_and_the_others_are_used(document):
    manifest = read(document, make_service())
    assert manifest.objects.keys() == {WEB}
    assert [str(skipped) for skipped in manifest.skipped] == ["/m/a.yaml document 1: not an object"]


@pytest.mark.parametrize("metadata", [None, [], {}, {"name": 1}, {"name": "web", "namespace": 1}])
def test_an_object_without_a_usable_name_is_named_by_its_place(metadata):
    listed = {"apiVersion": "v1", "kind": "List", "items": [make_service(), make_service() | {"metadata": metadata}]}
    manifest = read(make_endpoint_slice(), listed)
    assert manifest.objects.keys() == {WEB, SLICE}
    assert [skipped.name for skipped in manifest.skipped] == ["/m/a.yaml document 2 items[1]"]


def test_an_object_that_is_twice_in_a_file_counts_as_it_stands_first():
    manifest = read(make_service(), make_service(cluster_ips=["10.96.0.99"]))
    assert msgspec.json.decode(manifest.objects[WEB]) == make_service()
    assert str(manifest.skipped[0]) == "/m/a.yaml document 2: Service default/web stands earlier in this file"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", b"a: b: c"),
        ("a.yaml", b"\xff\xfe\xff"),
        ("a.json", b"{"),
        ("a.json", b"[" * 100_000),
        ("a.json", b""),
    ],
)
def test_text_that_cannot_be_read_is_an_error_of_one_line(name, text):
    with pytest.raises(ManifestError) as caught:
        read_manifest(Path(name), text)
    assert str(caught.value).isprintable()
