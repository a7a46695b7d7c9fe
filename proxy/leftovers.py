"""Rules that nobody needs: ours of another mode or another variant of iptables, or all of ours; and kube-proxy's."""

from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from controlloop.command import NOT_INSTALLED, CommandError
from controlloop.errors import OperatorError
from controlloop.family import Family
from controlloop.iptables.kernel import Variant, detect_variant
from controlloop.logs import Log
from proxy.config import ProxyMode
from proxy.counting.kernel import CountingBackend
from proxy.iptables.kernel import IptablesBackend, holds_kube_proxy
from proxy.nftables.kernel import NftablesBackend, TableBackend

Backend = TableBackend | IptablesBackend

log = Log("leftovers")


def families() -> list[Family]:
    """Those the kernel speaks; it may be built or booted without IPv6."""
    return [family for family in Family if family is Family.V4 or Path("/proc/net/if_inet6").exists()]


async def leftovers(mode: ProxyMode, *, counts: bool) -> list[Backend]:
    """Whatever an earlier netproxy in another mode, with the other variant of iptables, or with counters that are not
    wanted any more, may have left.
    """
    found: list[Backend] = []
    for family in families():
        if not counts:
            found.append(CountingBackend(family))
        unused = set(variants(family))
        if mode is ProxyMode.IPTABLES:
            found.append(NftablesBackend(family))
            unused.discard(await detect_variant(family))
        found += [IptablesBackend(family, variant) for variant in unused]
    return found


def variants(family: Family) -> Collection[Variant]:
    """Those that may hold rules: asking for legacy ones would make the kernel set the tables up."""
    names = Path(f"/proc/net/{'ip' if family is Family.V4 else 'ip6'}_tables_names")
    with suppress(OSError):
        if "nat" in names.read_text().split():
            return tuple(Variant)
    return (Variant.NFT,)


async def tell_of_kube_proxy() -> None:
    """Its rules translate connections beside ours, and it alone knows when they may go."""
    for family in families():
        for variant in variants(family):
            if await holds_kube_proxy(family, variant):
                log.warning(
                    "rules of kube-proxy are in iptables; without it, remove them with kube-proxy --cleanup",
                    family=family.nft,
                    variant=variant.value,
                )


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
    everything: list[Backend] = []
    for family in families():
        # Each variant goes, so iptables is not asked which of them it is: the host may have none.
        tables = CountingBackend(family), NftablesBackend(family)
        everything += [*tables, *(IptablesBackend(family, variant) for variant in variants(family))]
    for failure in await remove_rules(everything):
        raise OperatorError(f"--cleanup: {failure}")
