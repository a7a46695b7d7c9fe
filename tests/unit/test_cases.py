"""Each case of flannel's suites, and each of its known faults, has a test here or a reason why it has none."""

import re

import pytest
from cases import TABLES, TESTS, marked, places, rows, written

FLANNEL = {
    *(str(number) for number in range(1, 51)),
    *(f"A{number}" for number in range(1, 13)),
    *(f"B{number}" for number in range(1, 7)),
}
FOUND = places()


@pytest.fixture(params=TABLES)
def marker(request):
    return request.param


def test_flannels_cases_are_all_in_the_table():
    assert rows(TABLES["flannel"].read_text()).keys() == FLANNEL


def test_each_of_flannels_cases_has_a_test_or_a_reason():
    told = rows(TABLES["flannel"].read_text())
    without = {case: told[case] for case in FLANNEL - FOUND["flannel"].keys()}
    assert all(re.match(r"none: \w", reason) for reason in without.values()), without


def test_a_marker_names_a_case_of_the_table(marker):
    assert FOUND[marker].keys() <= rows(TABLES[marker].read_text()).keys()


def test_the_table_says_where_the_markers_are(marker):
    """`python tests/cases.py` writes it anew."""
    text = TABLES[marker].read_text()
    assert text == written(text, FOUND[marker])


def test_a_case_that_the_table_calls_tested_is(marker):
    for case, where in rows(TABLES[marker].read_text()).items():
        for file in re.findall(r"`(\S+\.py)`", where):
            assert (TESTS / file).exists(), (case, file)
            assert case in FOUND[marker], case


def test_markers_are_found_wherever_they_stand():
    source = """
pytestmark = pytest.mark.flannel("1")
CASES = [pytest.param(1, marks=pytest.mark.kube_proxy("6.1-2"))]
@pytest.mark.flannel("3", "A4")
async def test_it(): ...
@pytest.mark.skip("5")
def test_other(): ...
"""
    assert set(marked(source)) == {("flannel", "1"), ("kube_proxy", "6.1-2"), ("flannel", "3"), ("flannel", "A4")}
