import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlloop.errors import CompactedError, UnavailableError
from controlloop.kubernetes.answers import DeniedError, NotFoundError, UnauthenticatedError, refusal, retry_after_s
from controlloop.kubernetes.decode import (
    Moved,
    Name,
    Put,
    Removed,
    Unreadable,
    parse_event,
    parse_page,
    refuse_going_back,
    status_of,
    went_back,
)
from controlloop.kubernetes.resources import ENDPOINT_SLICES, NODES, SERVICES


class Shape(msgspec.Struct):
    x: int = 0


def event(kind, **content):
    metadata = {"name": "a", "namespace": "n", "resourceVersion": "7", "managedFields": [{"f:x": {}}]}
    return json.dumps({"type": kind, "object": {"metadata": metadata, **content}}).encode()


@pytest.mark.parametrize(
    ("line", "change"),
    [
        (event("ADDED", x=1), Put("7", Name("n", "a"), Shape(1))),
        (event("MODIFIED", x=1, y=2), Put("7", Name("n", "a"), Shape(1))),
        (event("DELETED", x="any"), Removed("7", Name("n", "a"))),
        (event("BOOKMARK"), Moved("7")),
        (event("ADDED", x="1"), Unreadable("7", Name("n", "a"), "Expected `int`, got `str` - at `$.x`")),
    ],
)
def test_a_line_of_a_watch_is_a_change(line, change):
    assert parse_event(line, Shape, "watch things") == change


@pytest.mark.flannel("28")
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_other_line_is_unavailable(line):
    with pytest.raises(UnavailableError):
        parse_event(line, Shape, "watch things")


@pytest.mark.flannel("28")
@given(st.data())
def test_a_line_cut_anywhere_is_never_a_change(data):
    line = event("ADDED", x=12345)
    with pytest.raises(UnavailableError):
        parse_event(line[: data.draw(st.integers(0, len(line) - 1))], Shape, "watch things")


def test_the_last_page_has_no_token_and_an_empty_one_may_have_no_items():
    page = parse_page(b'{"metadata":{"resourceVersion":"9","continue":"t"},"items":null}', Shape)
    assert (page.proceed, page.listing.revision, page.listing.objects) == ("t", "9", ())
    assert parse_page(b'{"metadata":{"resourceVersion":"9"}}', Shape).proceed == ""


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (401, "", UnauthenticatedError),
        (403, "", DeniedError),
        (404, "", NotFoundError),
        (409, "", UnavailableError),
        (410, "", CompactedError),
        (429, "", UnavailableError),
        (500, "", UnavailableError),
        (504, "", UnavailableError),
        (504, "Too large resource version: 90, current: 7", CompactedError),
        (0, "", UnavailableError),
    ],
)
def test_a_refusal_says_whose_move_is_next(status, message, error):
    assert type(refusal("list nodes", status, message)) is error


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"kind":"Status","message":"no","reason":"Forbidden"}', "no"),
        (b'{"kind":"Status","reason":"Forbidden"}', "Forbidden"),
        (b"<html>\nbad gateway", "<html>"),
        (b"\xff", "�"),
        (b"x" * 1000, "x" * 200),
        (b"", ""),
    ],
)
def test_the_message_of_a_refusal_is_one_short_line(raw, message):
    assert status_of(raw) == message


@pytest.mark.parametrize(
    ("header", "seconds"), [("", 0), ("7", 7), ("900", 60), ("-1", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("٣", 0)]
)
def test_retry_after_counts_in_seconds_and_has_an_end(header, seconds):
    assert retry_after_s(header, 60.0) == seconds


@pytest.mark.parametrize(
    ("before", "now", "back"),
    [("9", "10", False), ("10", "9", True), ("7", "7", False), ("", "7", False), ("a", "1", False)],
)
def test_revisions_are_compared_as_numbers(before, now, back):
    assert went_back(before, now) is back


def test_going_back_names_both():
    with pytest.raises(CompactedError, match=r"^watch nodes: the store went back from revision 10 to 9$"):
        refuse_going_back("watch nodes", "10", "9")


def test_targets_are_what_the_api_server_serves():
    assert NODES.target() == "/api/v1/nodes"
    assert NODES.where(fields="metadata.name=a b").target(limit=5) == (
        "/api/v1/nodes?fieldSelector=metadata.name%3Da+b&limit=5"
    )
    headless = "!service.kubernetes.io/headless"
    assert ENDPOINT_SLICES.where(labels=headless).target() == (
        "/apis/discovery.k8s.io/v1/endpointslices?labelSelector=%21service.kubernetes.io%2Fheadless"
    )
    assert NODES.object_path("a/../b", "status") == "/api/v1/nodes/a%2F..%2Fb/status"
    assert str(SERVICES) == "services"
