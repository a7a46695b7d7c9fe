"""Rules of ours that nobody needs any more: of another mode, of another variant of iptables, or all of them."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from controlloop.command import NOT_INSTALLED, CommandError
from controlloop.errors import OperatorError
from controlloop.family import Family
from controlloop.iptables.kernel import Variant
from controlloop.logs import Log
from proxy.config import ProxyMode
from proxy.iptables.kernel import IptablesBackend
from proxy.nftables.kernel import NftablesBackend

Backend = NftablesBackend | IptablesBackend

log = Log("leftovers")


def families() -> list[Family]:
    """Those the kernel speaks; it may be built or booted without IPv6."""
    return [family for family in Family if family is Family.V4 or Path("/proc/net/if_inet6").exists()]


def leftovers(mode: ProxyMode) -> Iterator[Backend]:
    """Whatever an earlier netproxy in another mode, or with the other variant of iptables, may have left."""
    for family in families():
        if mode is ProxyMode.IPTABLES:
            yield NftablesBackend(family)
        else:
            yield IptablesBackend(family)
        yield from other_variant(family)


def other_variant(family: Family) -> Iterator[IptablesBackend]:
    """Legacy rules, where there are any: asking for them would make the kernel set the tables up."""
    with suppress(OSError):
        if "nat" in Path("/proc/net/ip_tables_names").read_text().split():
            yield IptablesBackend(family, Variant.LEGACY)


async def remove_rules(backends: Iterable[Backend]) -> list[CommandError]:
    """Remove all that is ours; gives back what failed. With a program that is not installed nothing was written."""
    failures = []
    for backend in backends:
        try:
            await backend.cleanup()
        except CommandError as error:
            if error.returncode != NOT_INSTALLED:
                log.warning("cleanup failed", error=error)
                failures.append(error)
    return failures


async def cleanup() -> None:
    """Remove all rules of ours, in every mode and variant. OperatorError when some could not be removed."""
    everything = [backend for mode in ProxyMode for backend in leftovers(mode)]
    for failure in await remove_rules(everything):
        raise OperatorError(f"--cleanup: {failure}")
