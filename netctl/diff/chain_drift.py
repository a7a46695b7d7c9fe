"""Compares our chains in one variant of iptables. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from controlloop.iptables.chains import Key, Rules
from netctl.diff.drift import NOBODY, Difference, Owners

SETS = "ipset"
"""Stands for the table of sets of addresses. One that a rule names cannot go, and the rules are compared."""


def wanted_chains(listed: list[list[Any]]) -> dict[Key, Rules]:
    """The objects of a page."""
    return {(table, chain): tuple(rules) for (table, chain), rules in listed if table != SETS}


def differences(
    place: str, wanted: Mapping[Key, Rules], actual: Mapping[Key, Rules], owners: Owners
) -> list[Difference]:
    """Chain by chain where a chain has an owner, else rule by rule; with all chains gone that is one object."""
    if not actual:
        text = f"{len(wanted)} chains with {sum(map(len, wanted.values()))} rules"
        return [Difference(place, "all chains", owners.daemon, (text,))] if wanted else []
    found: list[Difference] = []
    for key in sorted(wanted.keys() | actual.keys()):
        want, have = wanted.get(key), actual.get(key)
        if want != have:
            found += chain_differences(place, key, want, have, owners)
    return found


def chain_differences(
    place: str, key: Key, want: Rules | None, have: Rules | None, owners: Owners
) -> Iterator[Difference]:
    table, chain = key
    name, owner = f"{table} chain {chain}", owners.of(key, NOBODY)
    missing, extra = lines_that_differ(want or (), have or ())
    made, left = (f":{chain}",) if have is None else (), (f":{chain}",) if want is None else ()
    is_reordered = have is not None and want is not None and sorted(have) == sorted(want)
    if owner.name or want is None or is_reordered:
        wanted, actual = (*made, *appended(chain, missing)), (*left, *appended(chain, extra))
        yield Difference(place, name, owner if want is None or owner.name else owners.daemon, wanted, actual)
        return
    # The chain is everybody's, and each of its rules somebody's.
    for rule in missing:
        yield Difference(place, f"{name}: {rule}", owners.of((table, rule)), appended(chain, (rule,)))
    for rule in extra:
        yield Difference(place, f"{name}: {rule}", NOBODY, (), appended(chain, (rule,)))


def appended(chain: str, rules: Rules) -> Rules:
    return tuple(f"-A {chain} {rule}" for rule in rules)


def lines_that_differ(want: Rules, have: Rules) -> tuple[Rules, Rules]:
    """All of them where only their order is another."""
    missing, extra = Counter(want) - Counter(have), Counter(have) - Counter(want)
    if want and have and not (missing or extra):
        return want, have
    return tuple(missing.elements()), tuple(extra.elements())
