"""Everything in the manifests is read and checked before the first byte is written."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from builders import make_endpoint_slice, make_service

from controlloop.errors import OperatorError
from controlloop.flags import run_command
from netctl.apply.objects import check, read_objects
from netctl.main import netctl


def names(objects):
    return [f"{kind.value} {name}" for kind, name in objects]


def test_files_folders_and_standard_input_are_read_in_the_order_given(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "b.yml").write_text(yaml.safe_dump(make_service(name="b")))
    (folder / "a.yaml").write_text(yaml.safe_dump_all([make_service(name="a"), make_endpoint_slice()]))
    (folder / "readme.md").write_text("{")
    piped = yaml.safe_dump(make_service(name="piped")).encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(piped)))
    assert names(read_objects([Path("-"), folder])) == [
        "Service default/piped",
        "Service default/a",
        "EndpointSlice default/web-1",
        "Service default/b",
    ]


def refusal(tmp_path, text):
    path = tmp_path / "web.yaml"
    path.write_text(text)
    with pytest.raises(OperatorError) as caught:
        check(read_objects([path]))
    return str(caught.value).replace(str(path), "web.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "-f web.yaml: line 2: "),
        ("- 1\n", "-f web.yaml document 1: not an object"),
        ("apiVersion: v1\nkind: Service\n", "-f web.yaml document 1: metadata: "),
        (yaml.safe_dump_all([make_service()] * 2), "-f web.yaml document 2: Service default/web stands earlier"),
        (yaml.safe_dump(make_service(ports=[("http", "TCP", 0)])), "Service default/web: spec.ports[0].port: "),
        (
            yaml.safe_dump(make_service(cluster_ips=["10.96.0.999"])),
            "Service default/web: spec.clusterIPs: 10",
        ),
        (
            '{"apiVersion":"v1", "kind": "Service", "metadata": {"name":"web"}, "spec": {"clusterIP": "10.96.0.300"}}',
            "Service default/web: spec.clusterIP: 10.96.0.300 is not an IP address",
        ),
        (yaml.safe_dump(make_endpoint_slice(endpoints=["10.244.1"])), "EndpointSlice default/web-1: "),
    ],
    ids=["yaml", "list", "nameless", "twice", "port", "addresses", "address", "endpoint"],
)
def test_the_first_thing_that_makes_no_sense_is_named_with_its_place(tmp_path, text, words):
    assert refusal(tmp_path, text).startswith(words)


@pytest.mark.parametrize("command", ["apply", "delete"])
def test_a_file_that_is_not_there_is_named(capsys, command):
    assert run_command(netctl, [command, "-f", "nosuch.yaml"]) == 2
    assert capsys.readouterr().err == "netctl: -f nosuch.yaml: No such file or directory\n"


def test_manifests_without_any_object_of_ours_are_refused(capsys, tmp_path):
    (tmp_path / "pod.yaml").write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n")
    assert run_command(netctl, ["apply", "-f", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"netctl: -f {tmp_path}: no Service, EndpointSlice or Endpoints in it\n"
