"""A manifest file's text to the objects in it, as JSON by name. What an object says is the tracker's business."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from controlloop.errors import Skipped
from controlloop.logs import Log
from controlloop.printable import printable
from controlloop.yaml_documents import documents
from proxy.objects import DEFAULT_NAMESPACE, Kind, ObjectName

log = Log("manifests")

ObjectKey = tuple[Kind, ObjectName]

KINDS = {
    ("v1", "Service"): Kind.SERVICE,
    ("v1", "Endpoints"): Kind.ENDPOINTS,
    ("discovery.k8s.io/v1", "EndpointSlice"): Kind.ENDPOINT_SLICE,
}
LIST = ("v1", "List")


class ManifestError(ValueError):
    """The file is no manifest. One line."""


@dataclass(slots=True)
class Manifest:
    objects: dict[ObjectKey, bytes] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


def read_manifest(path: Path, content: bytes) -> Manifest:
    """The objects in the content of a file. `*.json` is read as JSON, all else as YAML.

    ManifestError when the text cannot be read. A document that is no object is named, and the others are used.
    """
    manifest = Manifest()
    is_json = path.suffix == ".json"
    try:
        stream = iter([msgspec.json.decode(content)]) if is_json else documents(content)
        for number, document in enumerate(stream, start=1):
            for label, found in _flattened(printable(f"{path} document {number}"), document):
                _add(manifest, label, found)
    except (ValueError, RecursionError) as error:
        raise ManifestError(printable(str(error))) from error
    return manifest


def _flattened(label: str, document: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(document, dict) or _type(document) != LIST:
        yield label, document
        return
    items = document.get("items")
    for index, item in enumerate(items if isinstance(items, list) else ()):
        yield f"{label} items[{index}]", item


def _add(manifest: Manifest, label: str, document: Any) -> None:
    if document is None:
        return
    if not isinstance(document, dict):
        manifest.skipped.append(Skipped(label, "not an object"))
        return
    kind = KINDS.get(_type(document))
    if kind is None:
        log.debug("ignored", at=label, type=printable("/".join(_type(document))))
        return
    name = _name(document)
    if name is None:
        manifest.skipped.append(Skipped(label, "metadata: name and namespace must be text, and the name be there"))
    elif (kind, name) in manifest.objects:
        manifest.skipped.append(Skipped(label, printable(f"{kind.value} {name} stands earlier in this file")))
    else:
        manifest.objects[kind, name] = msgspec.json.encode(document)


def _type(document: dict[str, Any]) -> tuple[str, str]:
    return str(document.get("apiVersion")), str(document.get("kind"))


def _name(document: dict[str, Any]) -> ObjectName | None:
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return None
    namespace, name = metadata.get("namespace"), metadata.get("name")
    namespace = DEFAULT_NAMESPACE if namespace is None else namespace
    return ObjectName(namespace, name) if isinstance(namespace, str) and isinstance(name, str) else None
