"""Reading elements of a set from the kernel while somebody changes it."""

import subprocess
from itertools import count

import pytest

from controlloop.family import Family
from controlloop.nft import dump

pytestmark = pytest.mark.usefixtures("netns")

STAYING = {f"10.0.{high}.{low}" for high in range(40) for low in range(250)}
PASSING = [f"10.1.0.{low}" for low in range(250)]


def nft(text):
    subprocess.run(["nft", "-f", "-"], input=text, check=True, text=True)


@pytest.fixture
def elements():
    """Reads them."""
    nft("add table ip test\nadd set ip test numbers { type ipv4_addr; }\n")
    nft(f"add element ip test numbers {{ {', '.join([*STAYING, *PASSING])} }}")
    return lambda: dump.elements_of(Family.V4, "test", "numbers", "ipv4_addr").keys()


def test_what_does_not_change_is_read_once(elements, monkeypatch):
    readings = count()
    read_once = dump.read_once
    monkeypatch.setattr(dump, "read_once", lambda *what: (next(readings), read_once(*what))[1])
    assert elements() == STAYING | {*PASSING}
    assert next(readings) == 1


def test_what_stays_is_not_missed_when_something_goes_meanwhile(elements, monkeypatch):
    going = iter([f"delete element ip test numbers {{ {', '.join(PASSING)} }}"])
    read = dump.many_elements

    def interrupted(*message):
        for line in going:
            nft(line)
        return read(*message)

    monkeypatch.setattr(dump, "many_elements", interrupted)
    assert elements() == STAYING


def test_what_stays_is_not_missed_when_the_set_is_put_in_another_order_meanwhile(elements, monkeypatch):
    """The kernel does so when it has grown, some time after the change that made it grow."""
    coming = [f"10.2.{high}.{low}" for high in range(20) for low in range(250)]
    growing = iter([f"add element ip test numbers {{ {', '.join(coming)} }}"])
    read = dump.many_elements

    def interrupted(*message):
        for line in growing:
            nft(line)
        return read(*message)

    monkeypatch.setattr(dump, "many_elements", interrupted)
    monkeypatch.setattr(dump, "GENERATION", slice(0))  # nothing tells of the change but the order
    assert elements() >= STAYING
