from ipaddress import ip_address

import pytest
from builders import json, make_endpoint_slice, make_service
from hypothesis import given
from hypothesis import strategies as st

from proxy.objects import Kind, ObjectName, RefusedError, decode, parse_address, printable

HOSTILE = ["web; flush ruleset", "web\n", "web }", "$(id)", "-web", "Web", "web.", "a" * 64, "web\x1b[2J", "ẅeb", ""]

NO_ADDRESS = ["", ":", "10.0.0", "10.0.0.1.", "10..0.1", "10.0.0.256", "10.0.0.1/24", "0x0a.0.0.1", "167772161"]
NO_ADDRESS += ["10.0.0.1 }", "1\u0661.0.0.1"]
SCOPED = ["fd00::1%eth0", "fd00::1%}; flush ruleset"]
SPECIAL = ["127.0.0.1", "0.0.0.0", "224.0.0.1", "169.254.1.1", "::", "::1", "fe80::1", "ff02::1", "::ffff:127.0.0.1"]


def refusal(kind, made):
    with pytest.raises(RefusedError) as caught:
        decode(kind, json(made))
    text = str(caught.value)
    assert text.isprintable()
    return text


def test_fields_that_we_do_not_use_are_not_compared():
    """A status, a resourceVersion and other people's labels come and go without a change."""
    plain = make_service(labels={})
    busy = make_service(labels={"app": "web"}, annotations={"note": "x"})
    busy["metadata"] |= {"resourceVersion": "7", "managedFields": [{"manager": "kubectl"}]}
    busy["status"] = {"loadBalancer": {}}
    del busy["metadata"]["annotations"]
    assert decode(Kind.SERVICE, json(plain)) == decode(Kind.SERVICE, json(busy))


def test_nulls_stand_for_absent_fields():
    made = make_service()
    made["metadata"] |= {"labels": None, "annotations": None, "creationTimestamp": None, "namespace": None}
    made["spec"] |= {"ports": None, "clusterIPs": None, "type": None}
    assert decode(Kind.SERVICE, json(made)).object_name == ObjectName("default", "web")
    made = make_endpoint_slice()
    made |= {"ports": None, "endpoints": None}
    assert decode(Kind.ENDPOINT_SLICE, json(made)).endpoints is None


def test_a_slice_name_may_have_dots_and_a_service_name_may_not():
    assert decode(Kind.ENDPOINT_SLICE, json(make_endpoint_slice(name="web.1-x"))).object_name.name == "web.1-x"
    assert "metadata.name" in refusal(Kind.SERVICE, make_service(name="web.1"))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_that_is_no_dns_name_refuses_the_object(text):
    assert refusal(Kind.SERVICE, make_service(name=text)) == "metadata.name: not a DNS name"
    assert refusal(Kind.SERVICE, make_service(namespace=text)) == "metadata.namespace: not a DNS name"
    assert refusal(Kind.ENDPOINT_SLICE, make_endpoint_slice(name=text)) == "metadata.name: not a DNS name"
    assert refusal(Kind.ENDPOINT_SLICE, make_endpoint_slice(service=text)).startswith("metadata.labels")


@pytest.mark.parametrize("text", [text for text in HOSTILE if text])
def test_a_port_name_that_is_no_dns_name_refuses_the_object(text):
    assert refusal(Kind.SERVICE, make_service(ports=[(text, "TCP", 80)])).startswith("spec.ports[0].name:")
    assert refusal(Kind.ENDPOINT_SLICE, make_endpoint_slice(ports=[(text, "TCP", 80)])).startswith("ports[0].name:")


@pytest.mark.parametrize("port", [0, -1, 65536, 1 << 70, "80", 80.5, True, None])
def test_a_service_port_out_of_range_is_named(port):
    made = make_service(ports=[("a", "TCP", 80), ("b", "TCP", port)])
    assert refusal(Kind.SERVICE, made).startswith("spec.ports[1].port:")


def test_each_wrong_field_is_named():
    assert refusal(Kind.SERVICE, make_service(ports=[("", "\x1b[31mXTP", 80)])).startswith("spec.ports[0].protocol:")
    assert refusal(Kind.SERVICE, {"spec": {}}) == "Object missing required field `metadata`"
    assert refusal(Kind.SERVICE, {"metadata": {}, "spec": {}}).startswith("metadata: Object missing")
    assert refusal(Kind.SERVICE, make_service(created="2026-01-01T00:00:00")).startswith("metadata.creationTimestamp:")
    assert refusal(Kind.ENDPOINT_SLICE, make_endpoint_slice(address_type="IPX")).startswith("addressType:")
    assert refusal(Kind.ENDPOINT_SLICE, make_service()).startswith(("kind:", "apiVersion:"))


@given(st.binary() | st.just(b"[" * 100_000) | st.recursive(st.none() | st.text(), st.lists).map(json))
def test_garbage_is_refused_and_never_raises_anything_else(raw):
    for kind in Kind:
        with pytest.raises(RefusedError):
            decode(kind, raw)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("10.96.0.10", "10.96.0.10"),
        ("010.096.000.010", "10.96.0.10"),
        ("fd00:0:0::1", "fd00::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
    ],
)
def test_addresses_are_normalised(text, meant):
    assert parse_address("spec.clusterIP", text) == ip_address(meant)


@pytest.mark.parametrize("text", [*NO_ADDRESS, *SCOPED, *SPECIAL])
def test_what_is_no_usable_address_is_refused(text):
    """The text behind a % would otherwise be printed into a rule as it stands."""
    with pytest.raises(RefusedError, match=r"^spec\.clusterIP: "):
        parse_address("spec.clusterIP", text)


@given(st.text())
def test_printable_text_is_one_bounded_line(text):
    shown = printable(text)
    assert shown.isprintable()
    assert printable("a" * 10_000).endswith("a...")
