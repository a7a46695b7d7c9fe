"""Whatever an API server answers: understood, or an outage that time may mend; never anything else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlloop.errors import CompactedError, UnavailableError
from controlloop.kubernetes.decode import parse_event, parse_object, parse_page

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "name": VALUES,
        "namespace": VALUES,
        "resourceVersion": VALUES,
        "managedFields": VALUES,
        "continue": VALUES,
    },
)
OBJECTS = st.fixed_dictionaries({}, optional={"metadata": METADATA | VALUES, "spec": VALUES, "items": VALUES})
LISTS = st.fixed_dictionaries(
    {}, optional={"metadata": METADATA | VALUES, "items": st.lists(OBJECTS, max_size=3) | VALUES}
)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR", "?"]) | VALUES,
        "object": OBJECTS | VALUES,
    },
)


def texts(documents):
    """Whole, cut off somewhere, or bytes of any kind."""
    whole = documents.map(lambda document: json.dumps(document).encode())
    cut = st.builds(lambda text, at: text[: at % (len(text) + 1)], whole, st.integers(0, 10_000))
    return whole | cut | st.binary(max_size=40)


@given(texts(LISTS))
def test_a_page(raw):
    try:
        page = parse_page(raw, bytes)
    except UnavailableError:
        return
    assert all(b"managedFields" not in json.loads(put.content)["metadata"] for put in page.listing.objects)


@given(texts(OBJECTS))
def test_an_object(raw):
    try:
        parse_object(raw, bytes)
    except UnavailableError:
        return


@given(texts(EVENTS))
def test_an_event(raw):
    try:
        parse_event(raw, bytes, "watch things")
    except (UnavailableError, CompactedError):
        return


@pytest.mark.parametrize(
    "inner", [b'"\xff"', b"[" * 100_000 + b"]" * 100_000, b"[" * 100_000], ids=["text", "deep", "cut"]
)
def test_no_text_and_no_end(inner):
    made = b'{"metadata":{"name":%s},"spec":%s}' % (inner, inner)
    for parse in (parse_page, parse_object):
        with pytest.raises(UnavailableError):
            parse(b'{"metadata":{},"items":[%s]}' % made if parse is parse_page else made, bytes)
    with pytest.raises(UnavailableError):
        parse_event(b'{"type":"ADDED","object":%s}' % made, bytes, "watch things")
