"""What of the kernel no program prints, asked over netlink. The only file with effects that all commands share."""

from collections.abc import Callable, Mapping
from typing import Any

from controlloop.family import Family

IPSETS = "ipsets"
"""Whether this kernel has sets of addresses that this process may use: why not, empty when it has."""


def refused_sets() -> str:
    from proxy.iptables.address_sets import AddressSets  # noqa: PLC0415 - who asks for something else does without

    try:
        AddressSets(Family.V4, "").check()
    except OSError as error:
        return str(error)
    return ""


QUESTIONS: Mapping[str, Callable[[], Any]] = {IPSETS: refused_sets}
"""By the words that a netctl.node.Node is asked with."""
