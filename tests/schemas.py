"""Judges netctl's documents by the schemas that are shipped with it."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

FOLDER = Path(__file__).parent.parent / "netctl/schemas"


def validated(document: dict[str, Any]) -> dict[str, Any]:
    """The document itself; AssertionError that names each place that is not as its kind's schema wants it."""
    found = [f"{error.json_path}: {error.message}" for error in validator(document["kind"]).iter_errors(document)]
    assert not found, "\n".join([f"a {document['kind']} is not as its schema says:", *found[:20]])
    return document


@cache
def validator(kind: str) -> Draft202012Validator:
    schema = json.loads((FOLDER / f"{kind}.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)
