"""What nf_tables is asked for names, by whom it is answered, and by whom it is not."""

import subprocess
from itertools import count

import pytest

from controlloop import command
from controlloop.command import run
from controlloop.family import Family
from controlloop.iptables.chains import Owned
from controlloop.iptables.kernel import IptablesChains, Variant, program_name, variant_by_name
from controlloop.nft import names
from controlloop.nft.names import chains_of, may_have_table

pytestmark = pytest.mark.usefixtures("netns")


def nft(text):
    subprocess.run(["nft", "-f", "-"], input=text, check=True, text=True)


@pytest.fixture(params=list(Family), ids=lambda family: family.nft)
def family(request):
    return request.param


def test_a_bare_node_has_nothing(family):
    assert not may_have_table(family, "ours")
    assert chains_of(family) == set()


def test_tables_and_chains_are_those_of_one_family(family):
    other = next(each for each in Family if each is not family)
    nft(f"add table {family.nft} ours\nadd chain {family.nft} ours first\nadd chain {family.nft} ours second\n")
    nft(f"add table {other.nft} theirs\n")
    assert may_have_table(family, "ours")
    assert not may_have_table(family, "theirs")
    assert chains_of(family) == {("ours", "first"), ("ours", "second")}


def test_thousands_of_chains_take_several_datagrams(family):
    wanted = {f"chain-with-a-name-{number}" for number in range(5000)}
    nft(f"add table {family.nft} ours\n" + "".join(f"add chain {family.nft} ours {name}\n" for name in wanted))
    assert len(list(names.datagrams(family, names.GET_CHAIN))) > 2
    assert chains_of(family) == {("ours", name) for name in wanted}


def test_a_ruleset_that_changes_all_the_time_is_not_told(family, monkeypatch):
    numbers = count()
    nft(f"add table {family.nft} ours\n" + "".join(f"add chain {family.nft} ours c{n}\n" for n in range(5000)))
    datagrams = names.datagrams

    def disturbed(*what):
        for datagram in datagrams(*what):
            nft(f"add table {family.nft} another-{next(numbers)}")
            yield datagram

    monkeypatch.setattr(names, "datagrams", disturbed)
    assert chains_of(family) is None
    assert next(numbers) > names.READINGS


def test_a_kernel_that_refuses_may_have_anything(family, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "refused")

    monkeypatch.setattr(names, "datagrams", refused)
    assert may_have_table(family, "ours")
    assert chains_of(family) is None


async def test_rules_are_read_where_the_kernel_does_not_say(family, monkeypatch):
    program = "iptables-nft" if family is Family.V4 else "ip6tables-nft"
    await run([program, "-N", "OURS-1"])
    chains = IptablesChains(family, Owned(("OURS-",)), Variant.NFT)
    told = await chains.dump()
    monkeypatch.setattr(names, "listed", lambda *_: None)
    assert await chains.dump() == told == {("filter", "OURS-1"): ()}


def test_a_variant_is_known_by_where_its_links_lead(family, tmp_path, monkeypatch):
    program = program_name(family)
    assert variant_by_name(program) is variant_by_name(program_name(family, variant_by_name(program)))
    (tmp_path / program).write_text("#!/bin/sh\n")
    (tmp_path / program).chmod(0o755)
    monkeypatch.setattr(command, "SEARCH_PATH", str(tmp_path))
    assert variant_by_name(program) is None
