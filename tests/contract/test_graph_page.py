"""The page of `netctl graph` in Debian's chromium, without a window and without a network."""

import re
from dataclasses import replace

import pytest
from browser import browser
from graph_answers import answers, frontend, large, lost, mesh, unanswered

from netctl.graph.command import RENDER
from netctl.graph.document import network_graph

EVIL = "<img src=http://192.0.2.1/x onerror=document.title='owned'><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def one_browser():
    with browser() as found:
        yield found


@pytest.fixture
def page(one_browser, tmp_path):
    """Shows a document; judges at the end that it was quiet, and fetched nothing but itself."""
    files = []
    one_browser.console.clear()
    one_browser.requests.clear()

    def shown(document, fragment="", **look):
        files.append(tmp_path / f"page-{len(files)}.html")
        files[-1].write_text(RENDER["html"](document))
        one_browser.look(**look)
        one_browser.open(files[-1], fragment)
        assert one_browser.evaluate("document.documentElement.dataset.ready") == "yes"
        return one_browser

    yield shown
    assert one_browser.console == []
    fetched = {url.partition("#")[0] for url in one_browser.requests if url != "about:blank"}
    assert fetched <= {file.as_uri() for file in files}


@pytest.fixture(scope="module")
def cluster():
    """Three nodes; the first and the last do not reach each other; one Service of two is not served."""
    spread = [frontend(endpoints=["10.244.1.5:80", "10.244.2.5:80"], balance="weighted", weights=[3, 1])]
    spread.append(frontend("shop/cart:http", (), address="10.96.0.11"))
    said = mesh(3, lambda one, other: lost() if {one, other} == {1, 3} else {"rtt_ms": 0.5}, frontends=spread)
    findings = [unanswered("10.244.3.0-24"), unanswered("10.244.1.0-24")]
    return network_graph([replace(said[0], findings=findings[:1]), said[1], replace(said[2], findings=findings[1:])])


def rows(shown, section):
    return shown.texts(f"#{section} tbody tr")


def faded(shown, figure):
    return shown.evaluate(f"document.querySelectorAll('#{figure} .faded').length")


def test_it_shows_what_the_document_says(page, cluster):
    shown = page(cluster)
    assert shown.texts("h1, #summary, #verdict") == [
        *("3 nodes, seen from all of them", "6 paths, 2 services, 2 endpoints · 1970-01-12 13:46:40 UTC"),
        "✗ 2 findings",
    ]
    bar = ("10.244.1.5:80 · 75% · node-1", "10.244.2.5:80 · 25% · node-2")
    assert rows(shown, "services") == [
        "shop/cart:http10.96.0.11:80/tcprandom0✗ no endpoints",
        f"default/web:http10.96.0.10:80/tcpweighted2{''.join(bar)}node-1 75% · node-2 25%",
    ]
    assert rows(shown, "nodes")[1] == "node-2✓ ok192.168.0.210.244.2.0/240.50"
    assert {"✗ lost", "0.50 ms"} <= set(shown.texts("#topology text"))


def test_findings_of_one_code_stand_together_with_what_to_do(page, cluster):
    shown = page(cluster)
    assert shown.texts("#findings > ul > li > b") == ["NN104 peer does not answer"]
    (one, other) = shown.texts("#findings li li")
    assert one.startswith("node-1: 10.244.3.0-24 (node-3), for 3m12s · does not answer")
    assert other.startswith("node-3: 10.244.1.0-24 (node-1), for 3m12s")
    assert shown.texts("#findings code") == ["netctl check net"]
    assert page(network_graph(mesh(2))).texts("#findings") == []


@pytest.mark.parametrize(
    ("words", "services", "nodes"),
    [
        ("web", 1, 0),
        ("SHOP", 1, 0),
        ("node-2", 1, 1),
        ("10.96.0.11:80", 1, 0),
        ("192.168.0.3", 0, 1),
        ("web cart", 0, 0),
    ],
)
def test_the_filter_comes_from_the_address_and_finds_by_name_namespace_node_and_address(
    page, cluster, words, services, nodes
):
    shown = page(cluster, f"#filter={words.replace(' ', '+')}")
    assert (len(rows(shown, "services")), len(rows(shown, "nodes"))) == (services, nodes)
    assert shown.texts("#services small") == [f"{services} of 2"]


def test_figures_fade_what_the_filter_does_not_find_and_stay_whole_where_it_finds_nothing(page, cluster):
    shown = page(cluster, "#filter=node-2")
    # Of three pairs, with their labels, one is not node-2's; of three boxes two are not.
    assert faded(shown, "topology") == 4
    assert faded(shown, "flows") == 1
    assert faded(page(cluster, "#filter=nowhere"), "topology") == 0


def test_the_keyboard_is_enough(page, cluster):
    shown = page(cluster)
    shown.press("/", "/")
    shown.type("cart")
    assert rows(shown, "services") == ["shop/cart:http10.96.0.11:80/tcprandom0✗ no endpoints"]
    assert shown.evaluate("location.hash") == "#filter=cart"
    shown.press("Escape")
    assert len(rows(shown, "services")) == 2
    shown.evaluate("document.querySelector('#topology .node').focus()")
    assert shown.texts("#tip") == ["node-1: degraded (NN104) · 192.168.0.1 · 10.244.1.0/24"]
    shown.press("Enter", "\r")
    assert shown.evaluate("document.getElementById('filter').value") == "node-1"


def test_a_pointer_sees_the_tooltip_of_what_it_meets(page, cluster):
    shown = page(cluster)
    shown.evaluate("document.querySelector('#round-trips .cell.lost').scrollIntoView({block: 'center'})")
    place = shown.evaluate("document.querySelector('#round-trips .cell.lost').getBoundingClientRect().toJSON()")
    x, y = place["x"] + 9, place["y"] + 9
    shown.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert shown.texts("#tip") == ["node-1 → node-3: lost (no answer for 3m12s)"]


def test_foreign_text_does_nothing(page):
    """A Service that is named as markup, and a node, and what a finding quotes."""
    said = answers(EVIL, nodes=2, frontends=[frontend(f"default/{EVIL}:x"), frontend(f"a/{EVIL}", (), balance=EVIL)])
    shown = page(network_graph([replace(said, findings=[unanswered(EVIL, EVIL)])]))
    assert shown.evaluate("document.title") == f"2 nodes, seen from {EVIL}"
    assert shown.evaluate("document.querySelectorAll('img, main script, main style').length") == 0
    assert EVIL in " ".join(shown.texts("#services td.name"))


def test_a_script_that_got_in_would_not_run(one_browser, page):
    shown = page(network_graph([answers()]))
    shown.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'var owned = 1'}))")
    assert shown.evaluate("typeof owned") == "undefined"
    (told,) = one_browser.console
    assert re.search("Content Security Policy", told)
    one_browser.console.clear()


def test_a_large_cluster_opens_with_a_few_rows_and_the_filter_finds_every_one(page):
    shown = page(large(), "#filter=team-7/")
    assert shown.texts("#services small") == ["250 of 10,000"]
    shown.press("Escape")
    assert shown.texts("#services small, #nodes small") == ["10,000", "5,001"]
    assert len(rows(shown, "services")) == 50
    assert shown.texts(".more") == ["and 9,950 more", "and 4,951 more"]
    shown.evaluate("document.querySelector('#services .more').click()")
    assert len(rows(shown, "services")) == 100
    assert shown.evaluate("document.querySelectorAll('*').length") < 10_000


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_telephone_and_a_screen_in_both_schemes(page, cluster, width, scheme):
    shown = page(cluster, width=width, scheme=scheme)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    paper, ink = shown.evaluate("[...'background color'.split(' ')].map(k => getComputedStyle(document.body)[k])")
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (paper, ink)]
    assert (light[0] > light[1]) == (scheme == "light")


def test_paper_is_light_has_no_filter_and_keeps_all_figures(page, cluster):
    shown = page(cluster, media="print", scheme="dark")
    assert shown.texts("#search, footer") == []
    assert len(shown.texts("#figures section")) == 4
    paper = "getComputedStyle(document.querySelector('#figures section')).backgroundColor"
    assert shown.evaluate(paper) == "rgb(255, 255, 255)"
