import pytest
from aetcd import rpc

from controlloop.errors import OperatorError
from controlloop.etcd import Etcd, batch_from, prefix_range
from controlloop.etcd_access import TlsFiles
from controlloop.etcd_endpoint import parse_endpoint


@pytest.mark.parametrize(
    ("url", "target", "secure"),
    [
        ("http://127.0.0.1:2379", "dns:///127.0.0.1:2379", False),
        ("http://etcd.example/", "dns:///etcd.example:2379", False),
        ("http://[fd00::1]:4001", "dns:///[fd00::1]:4001", False),
        ("https://etcd.example", "dns:///etcd.example:2379", True),
    ],
)
def test_an_endpoint_is_a_client_url(url, target, secure):
    assert parse_endpoint(url) == (target, secure)


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:2379", "ftp://h:1", "http://", "http://h:x", "http://h:99999", "http://h/path", "http://u@h:1"],
)
def test_a_bad_endpoint_is_named(url):
    with pytest.raises(OperatorError) as caught:
        Etcd(["http://127.0.0.1:2379", url])
    assert f"--etcd-endpoints {url}: " in str(caught.value)


@pytest.mark.parametrize(
    ("field", "flag"), [("ca", "--etcd-cafile"), ("certificate", "--etcd-certfile"), ("key", "--etcd-keyfile")]
)
def test_a_missing_file_is_named_with_its_flag(tmp_path, field, flag):
    path = tmp_path / "none.pem"
    with pytest.raises(OperatorError, match=f"^{flag} {path}: No such file or directory$"):
        Etcd(["https://h:2379"], tls=TlsFiles(**{field: str(path)}))


@pytest.mark.parametrize("field", ["ca", "certificate"])
def test_a_file_that_holds_no_certificate_is_named(tmp_path, field):
    path = tmp_path / "text.pem"
    path.write_text("good morning\n")
    with pytest.raises(OperatorError) as caught:
        Etcd(["https://h:2379"], tls=TlsFiles(**{field: str(path)}))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_endpoint_there_is_nobody_to_ask():
    with pytest.raises(OperatorError):
        Etcd([])


def test_a_prefix_is_the_range_of_all_keys_that_begin_with_it():
    assert prefix_range("/a/") == (b"/a/", b"/a0")
    assert prefix_range("é") == ("é".encode(), b"\xc3\xaa")
    assert prefix_range("") == (b"\0", b"\0")


def event(key, revision, value=None):
    kind = rpc.Event.DELETE if value is None else rpc.Event.PUT
    return rpc.Event(type=kind, kv=rpc.KeyValue(key=key, value=value or b"", mod_revision=revision))


def answer(*events, revision=100):
    return rpc.WatchResponse(header=rpc.ResponseHeader(revision=revision), events=events)


def test_a_watch_that_catches_up_stands_at_its_last_event_and_not_where_the_store_is():
    assert batch_from(answer(event(b"a", 7, b"1"), event(b"b", 9, b"2"), revision=100)).revision == 9


def test_a_quiet_watch_moves_with_the_store():
    batch = batch_from(answer(revision=100))
    assert (batch.revision, batch.put, batch.removed) == (100, (), ())


def test_of_a_key_only_the_last_event_counts():
    batch = batch_from(
        answer(event(b"a", 1, b"1"), event(b"b", 2, b"2"), event(b"a", 3), event(b"b", 4), event(b"b", 5, b"3"))
    )
    assert [(kv.key, kv.value) for kv in batch.put] == [("b", b"3")]
    assert batch.removed == ("a",)


def test_a_key_that_is_no_text_stays_printable():
    assert batch_from(answer(event(b"/\xff", 1))).removed == ("/\\xff",)
