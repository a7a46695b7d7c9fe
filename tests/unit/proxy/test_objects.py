import pytest
from builders import json, make_endpoint_slice, make_service
from hypothesis import given
from hypothesis import strategies as st

from controlloop.printable import printable
from proxy.objects import Kind, ObjectName, RefusedError, decode

HOSTILE = ["web; flush ruleset", "web\n", "web }", "$(id)", "-web", "Web", "web.", "a" * 64, "web\x1b[2J", "ẅeb", ""]


def refusal(kind, made):
    with pytest.raises(RefusedError) as caught:
        decode(kind, json(made))
    text = str(caught.value)
    assert text.isprintable()
    return text


def test_fields_that_we_do_not_use_are_not_compared():
    """A status, a resourceVersion and other people's labels come and go without a change."""
    plain = make_service(labels={}, ingress=[])
    busy = make_service(labels={"app": "web"}, annotations={"note": "x"})
    busy["metadata"] |= {"resourceVersion": "7", "managedFields": [{"manager": "kubectl"}]}
    busy["status"] = {"loadBalancer": {"ingress": []}, "conditions": [{"type": "x"}]}
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
    made = {"metadata": {"name": "web", "annotations": None}, "subsets": None}
    assert decode(Kind.ENDPOINTS, json(made)).object_name == ObjectName("default", "web")


def test_a_slice_name_may_have_dots_and_a_service_name_may_not():
    assert decode(Kind.ENDPOINT_SLICE, json(make_endpoint_slice(name="web.1-x"))).object_name.name == "web.1-x"
    assert "metadata.name" in refusal(Kind.SERVICE, make_service(name="web.1"))


def test_a_slice_name_may_be_as_long_as_the_api_server_lets_it_be():
    """Who makes slices appends to the Service's name, which may have 63 characters of its own."""
    longest = "x" * 253
    assert decode(Kind.ENDPOINT_SLICE, json(make_endpoint_slice(name=longest))).object_name.name == longest
    assert "metadata.name" in refusal(Kind.ENDPOINT_SLICE, make_endpoint_slice(name=f"{longest}x"))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_that_is_no_dns_name_refuses_the_object_and_is_shown(text):
    shown = printable(text) or '""'
    assert refusal(Kind.SERVICE, make_service(name=text)) == f"metadata.name: {shown}: not a DNS name"
    assert refusal(Kind.SERVICE, make_service(namespace=text)) == f"metadata.namespace: {shown}: not a DNS name"
    if len(text) <= 63:
        slice_of_that_name = make_endpoint_slice(name=text)
        assert refusal(Kind.ENDPOINT_SLICE, slice_of_that_name) == f"metadata.name: {shown}: not a DNS name"
    label = f"metadata.labels.kubernetes.io/service-name: {shown}: not a DNS name"
    assert refusal(Kind.ENDPOINT_SLICE, make_endpoint_slice(service=text)) == label


@pytest.mark.parametrize("text", [text for text in HOSTILE if text])
def test_a_port_name_that_is_no_dns_name_refuses_the_object(text):
    shown = f"{printable(text)}: not a DNS name"
    assert refusal(Kind.SERVICE, make_service(ports=[(text, "TCP", 80)])) == f"spec.ports[0].name: {shown}"
    assert refusal(Kind.ENDPOINT_SLICE, make_endpoint_slice(ports=[(text, "TCP", 80)])) == f"ports[0].name: {shown}"


@pytest.mark.parametrize("port", [0, -1, 65536, 1 << 70, "80", 80.5, True, None, [80], {"number": 80}])
def test_a_service_port_out_of_range_is_named_with_its_value(port):
    made = make_service(ports=[("a", "TCP", 80), ("b", "TCP", port)])
    shown = "" if isinstance(port, dict) else f" {port if isinstance(port, str) else json(port).decode()}:"
    assert refusal(Kind.SERVICE, made).startswith(f"spec.ports[1].port:{shown} ")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"type": "Cluster"}, "spec.type: Cluster: none of the values known here"),
        ({"ports": [("", "\x1b[31mXTP", 80)]}, r"spec.ports[0].protocol: \x1b[31mXTP: none of the values known here"),
        ({"ports": [("", "TCP", 80, 65536)]}, "spec.ports[0].nodePort: 65536: Expected `int` <= 65535"),
        ({"ports": [("", "TCP", 80, "a")]}, "spec.ports[0].nodePort: a: Expected `int | null`, got `str`"),
        ({"sessionAffinity": "Cookie"}, "spec.sessionAffinity: Cookie: none of the values known here"),
        ({"internalTrafficPolicy": "x" * 200}, f"spec.internalTrafficPolicy: {'x' * 120}...: none of the values"),
        ({"externalTrafficPolicy": 7}, "spec.externalTrafficPolicy: 7: Expected `str | null`, got `int`"),
        ({"externalIPs": "192.0.2.1"}, "spec.externalIPs: 192.0.2.1: Expected `array | null`, got `str`"),
        ({"externalIPs": ["192.0.2.1", 5]}, "spec.externalIPs[1]: 5: Expected `str`, got `int`"),
        ({"loadBalancerSourceRanges": [[]]}, "spec.loadBalancerSourceRanges[0]: []: Expected `str`, got `array`"),
        ({"healthCheckNodePort": -1}, "spec.healthCheckNodePort: -1: Expected `int` >= 0"),
        ({"ingress": [{"ip": 5}]}, "status.loadBalancer.ingress[0].ip: 5: Expected `str | null`, got `int`"),
        ({"annotations": {"nodenet.io/balance": 5}}, "metadata.annotations.nodenet.io/balance: 5: Expected `str"),
        ({"created": "2026-01-01T00:00:00"}, "metadata.creationTimestamp: 2026-01-01T00:00:00: "),
    ],
)
def test_each_wrong_field_is_named_with_its_value(fields, said):
    assert refusal(Kind.SERVICE, make_service(**fields)).startswith(said)


@pytest.mark.parametrize(("timeout", "limit"), [(0, ">= 1"), (86401, "<= 86400"), (-1, ">= 1")])
def test_an_affinity_timeout_out_of_range_is_named(timeout, limit):
    made = make_service(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": timeout}})
    said = f"spec.sessionAffinityConfig.clientIP.timeoutSeconds: {timeout}: Expected `int` {limit}"
    assert refusal(Kind.SERVICE, made) == said


def test_a_missing_field_is_named():
    assert refusal(Kind.SERVICE, {"spec": {}}) == "Object missing required field `metadata`"
    assert refusal(Kind.SERVICE, {"metadata": {}, "spec": {}}) == "metadata: Object missing required field `name`"
    assert refusal(Kind.ENDPOINT_SLICE, make_endpoint_slice(address_type="IPX")).startswith("addressType: IPX: ")
    assert refusal(Kind.ENDPOINT_SLICE, make_service()).startswith(("kind:", "apiVersion:"))
    assert refusal(Kind.ENDPOINTS, {"metadata": {"name": "a"}, "subsets": [{"addresses": [{}]}]}) == (
        "subsets[0].addresses[0]: Object missing required field `ip`"
    )


def test_a_key_with_dots_is_found_among_its_likes():
    made = make_service(labels={"service": {"kubernetes": {"io/service-proxy-name": "a"}}, "x": "y"})
    made["metadata"]["labels"]["service.kubernetes.io/service-proxy-name"] = ["a"]
    assert refusal(Kind.SERVICE, made).startswith('metadata.labels.service.kubernetes.io/service-proxy-name: ["a"]: ')


def test_a_text_that_breaks_off_behind_a_wrong_field_is_refused_all_the_same():
    with pytest.raises(RefusedError, match=r"^metadata\.name: (?!.*A B).*not a DNS name$"):
        decode(Kind.SERVICE, b'{"metadata": {"name": "A B"}, "spec"')


@given(st.binary() | st.just(b"[" * 100_000) | st.recursive(st.none() | st.text(), st.lists).map(json))
def test_garbage_is_refused_and_never_raises_anything_else(raw):
    for kind in Kind:
        with pytest.raises(RefusedError):
            decode(kind, raw)


@given(st.text())
def test_printable_text_is_one_bounded_line(text):
    shown = printable(text)
    assert shown.isprintable()
    assert printable("a" * 10_000).endswith("a...")
