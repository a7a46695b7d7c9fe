"""Names in our table: readable, apart, and made of what nft takes."""

import re
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.frontends import Balance, Endpoint, Frontend, Protocol, ServiceName, ServicePortName
from proxy.nftables.names import LENGTH, named, of_endpoint, of_frontend

pytestmark = pytest.mark.kube_proxy("6.1-27")

TAKEN = re.compile(r"[A-Za-z0-9./_-]+")
WEB = ServicePortName(ServiceName("shop", "web"), "http")
ENDPOINT = Endpoint(ip_address("10.244.1.2"), 8080, is_local=True)
FRONTEND = Frontend(WEB, ip_address("10.96.0.1"), Protocol.TCP, 80, Balance.RANDOM, (ENDPOINT,))


def test_a_person_can_read_whose_it_is():
    assert of_frontend("affinity", FRONTEND).endswith("shop/web/tcp/80")
    assert all("shop/web/10.244.1.2/8080" in name for name in of_endpoint(FRONTEND, ENDPOINT))


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_makes_a_name_that_nft_takes(identity, readable):
    name = named("sources", identity, readable)
    assert TAKEN.fullmatch(name)
    assert len(name) <= LENGTH


@given(st.text(), st.text())
def test_what_is_different_has_different_names_however_it_reads(one, other):
    assert (named("x", one, "same") == named("x", other, "same")) == (one == other)


def test_frontends_and_endpoints_that_differ_in_anything_are_apart():
    others = [
        replace(FRONTEND, port=81),
        replace(FRONTEND, protocol=Protocol.UDP),
        replace(FRONTEND, address=ip_address("10.96.0.2")),
        replace(FRONTEND, name=ServicePortName(WEB.service, "other")),
    ]
    assert len({of_frontend("affinity", each) for each in (FRONTEND, *others)}) == 5
