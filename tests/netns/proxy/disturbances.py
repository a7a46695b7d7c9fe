"""What others do to node-1 for a while. Each takes the network, and puts everything back."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from namespace import inside
from network import ADDRESSES, Network

from controlloop.family import Family
from lab.wiring import ip

NODE = "node-1"
USUAL_MTU = 1500

MARKING = """
table inet somebody-else {{
    set seen {{ type mark; flags dynamic; size 1024; }}
    chain first {{ type filter hook prerouting priority -300; meta mark set {mark}; }}
    chain last {{ type filter hook postrouting priority 300; iifname "eth0" add @seen {{ meta mark }}; }}
}}
"""


@contextmanager
def own_address(network: Network, name: str) -> Iterator[None]:
    """The node itself has this address, as some load balancers want it."""
    namespace = network.namespace(NODE)
    lines = [f"{ADDRESSES[name][family]}/{family.bits} dev lo" for family in Family]
    # With nodad it can be a source in this moment.
    ip("-n", namespace, batch=[f"addr add {line} nodad" for line in lines])
    try:
        yield
    finally:
        ip("-n", namespace, batch=[f"addr del {line}" for line in lines])


@contextmanager
def sysctl(network: Network, path: str, value: str) -> Iterator[None]:
    file = Path("/proc/sys") / path
    with inside(network.namespace(NODE)):
        before = file.read_text()
        file.write_text(value)
        try:
            yield
        finally:
            file.write_text(before)


@contextmanager
def policy(network: Network, variant: str, chain: str, verdict: str) -> Iterator[None]:
    """The node's own policy in the filter table of one variant of iptables, in both families."""
    programs = [variant, variant.replace("iptables", "ip6tables")]
    with inside(network.namespace(NODE)):
        for program in programs:
            subprocess.run([program, "-P", chain, verdict], check=True)
        try:
            yield
        finally:
            for program in programs:
                subprocess.run([program, "-P", chain, "ACCEPT"], check=True)


@contextmanager
def narrow_overlay(network: Network, mtu: int) -> Iterator[None]:
    """The largest packet that the nodes may send each other."""

    def limit(number: int) -> None:
        for node in ("node-1", "node-2"):
            ip("-n", network.namespace(node), "link", "set", "overlay", "mtu", str(number))

    limit(mtu)
    try:
        yield
    finally:
        limit(USUAL_MTU)


@contextmanager
def marking(network: Network, mark: int) -> Iterator[Callable[[], set[int]]]:
    """Everything that enters the node bears a mark of somebody else; tells the marks of what leaves it."""
    with inside(network.namespace(NODE)):
        subprocess.run(["nft", "-f", "-"], input=MARKING.format(mark=mark), text=True, check=True)
        try:
            yield _marks_seen
        finally:
            subprocess.run(["nft", "delete", "table", "inet", "somebody-else"], check=True)


def _marks_seen() -> set[int]:
    argv = ["nft", "-j", "list", "set", "inet", "somebody-else", "seen"]
    listing = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    (found,) = (each["set"] for each in listing["nftables"] if "set" in each)
    return set(found.get("elem", []))
