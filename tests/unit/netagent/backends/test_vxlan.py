import pytest

from controlloop.errors import OperatorError
from netagent.backends.choice import parse_backend
from netagent.backends.vxlan import Vxlan, parse_mac


def test_options_have_flannels_names_in_any_case_and_its_defaults():
    assert parse_backend("vxlan", {}) == Vxlan(1, 8472, 0, False, False, False)
    assert parse_backend("VXLAN", {"Port": 0, "MTU": None}) == Vxlan()
    given = {"vni": 7, "PORT": 4789, "Mtu": 1400, "GBP": True, "learning": True, "directRouting": True, "Other": 1}
    assert parse_backend("vxlan", given) == Vxlan(7, 4789, 1400, True, True, True)


REFUSED = {
    "Backend.VNI 16777216": ("vxlan", {"VNI": 2**24}),
    "Backend.VNI '1'": ("vxlan", {"VNI": "1"}),
    "Backend.VNI True": ("vxlan", {"VNI": True}),
    "Backend.Port -1": ("vxlan", {"Port": -1}),
    "Backend.GBP 1": ("vxlan", {"GBP": 1}),
    "Backend.DirectRouting 'yes'": ("vxlan", {"DirectRouting": "yes"}),
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_bad_option_is_refused_by_name_and_value(words):
    with pytest.raises(OperatorError) as refused:
        parse_backend(*REFUSED[words])
    assert str(refused.value).startswith(words)


@pytest.mark.parametrize("text", ["82:4B:b6:2f:54:4e", "82-4b-b6-2f-54-4e", "824b.b62f.544e"])
def test_a_mac_is_read_in_each_form_that_go_reads(text):
    assert parse_mac(text) == "82:4b:b6:2f:54:4e"


@pytest.mark.parametrize("text", ["", "82:4b:b6:2f:54", "82:4b:b6:2f:54:4e:00:01", "82:4b-b6:2f:54:4e", "824bb62f544e"])
def test_what_is_no_mac_is_refused(text):
    with pytest.raises(ValueError, match="not a MAC"):
        parse_mac(text)
