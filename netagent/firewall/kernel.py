"""What the firewall asks of the host: what its programs can do, and that the rules of before go."""

from controlloop.command import CommandError, find, run
from controlloop.family import Family
from controlloop.iptables.chains import Owned
from controlloop.iptables.kernel import LOCK_WAIT_S, IptablesChains, detect_variant, program_name
from controlloop.nft.kernel import delete_table
from netagent.firewall.iptables import owned
from netagent.instance import FIRST, Instance

FLANNEL_TABLE = {Family.V4: "flannel-ipv4", Family.V6: "flannel-ipv6"}
FLANNEL = Owned(("FLANNEL-POSTRTG", "FLANNEL-FWD"))

NFT_PROBE = """\
add table {ip} netagent-probe
add chain {ip} netagent-probe nat {{ type nat hook postrouting priority 100; }}
add rule {ip} netagent-probe nat masquerade fully-random
"""
IPTABLES_PROBE = """\
*nat
:NETAGENT-PROBE - [0:0]
-A NETAGENT-PROBE -j MASQUERADE --random-fully
COMMIT
"""


async def nft_takes_fully_random(family: Family) -> bool:
    """Whether nft and the kernel know it: since Linux 3.14 and nft 0.6. Nothing is written."""
    return await succeeds(["nft", "--check", "--file", "-"], NFT_PROBE.format(ip=family.nft))


async def iptables_takes_random_fully(family: Family) -> bool:
    """Whether iptables knows it: since 1.6.2. Nothing is written."""
    program = program_name(family, await detect_variant(family), "restore")
    return await succeeds([program, "--test", "--noflush", "--wait", str(LOCK_WAIT_S)], IPTABLES_PROBE)


async def succeeds(argv: list[str], text: str) -> bool:
    try:
        await run(argv, text.encode())
    except CommandError:
        return False
    return True


def is_installed(program: str) -> bool:
    try:
        find(program)
    except CommandError:
        return False
    return True


async def retire_table(family: Family, instance: Instance = FIRST) -> None:
    """Ours in nftables. Where nft is not installed nobody has left any."""
    if is_installed("nft"):
        await delete_table(family, instance.program)


async def retire_chains(family: Family, instance: Instance = FIRST) -> None:
    """Ours in iptables, if it is installed."""
    if is_installed(program_name(family)):
        await IptablesChains(family, owned(instance)).cleanup()


async def retire_flannel(family: Family) -> None:
    """The rules of a flanneld that ran here before, in both of its modes."""
    if is_installed("nft"):
        await delete_table(family, FLANNEL_TABLE[family])
    if is_installed(program_name(family)):
        await IptablesChains(family, FLANNEL).cleanup()
