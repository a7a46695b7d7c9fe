"""Cuts what is new to the kernel into parts that iptables-nft-restore needs less memory for. Pure."""

from collections.abc import Iterator

from controlloop.delta import Delta
from controlloop.iptables.chains import Key, Rules
from proxy.iptables.service_rules import SERVICE_CHAINS

PORTION = 20_000
"""Rules in one transaction, for which it takes about 40 MB."""


def portions(delta: Delta[Key, Rules], most: int = PORTION) -> Iterator[Delta[Key, Rules]]:
    """First the chains of Services, to which nothing leads before the last portion; then all the rest at once.

    They come by descending name, which is the order of their jumps from the last to the first. It also saves time: at
    every rule the program walks a sorted list of the chains that are there, up to that of the rule.
    """
    if delta.drop or sum(map(len, delta.put.values())) <= most:
        yield delta
        return
    rest = dict(delta.put)
    for part in _parts(sorted((key for key in rest if key[1].startswith(SERVICE_CHAINS)), reverse=True), rest, most):
        yield Delta(put={key: rest.pop(key) for key in part})
    yield Delta(put=rest)


def _parts(keys: list[Key], rules: dict[Key, Rules], most: int) -> Iterator[list[Key]]:
    part: list[Key] = []
    size = 0
    for key in keys:
        part.append(key)
        size += len(rules[key])
        if size >= most:
            yield part
            part, size = [], 0
    if part:
        yield part
