"""The sysctl without which a node port cannot be reached at 127.0.0.1, and with which neighbors might reach all of it.

It goes on behind the chain that guards it and off before that: the guard is never away while the door is open.
"""

from pathlib import Path

from controlloop.logs import Log
from proxy.iptables.surroundings import LOOPBACK_ONLY

GUARD = ("raw", LOOPBACK_ONLY)
ROUTE_LOCALNET = Path("/proc/sys/net/ipv4/conf/all/route_localnet")

log = Log("iptables")


class Loopback:
    def __init__(self) -> None:
        self._refused = False
        self.was_closed = False
        """By us: others who share the sysctl may want it open."""

    @property
    def is_as_guarded(self) -> bool:
        """Whether a guard that stands guards something; True as well when there is nothing we could do about it."""
        return self._refused or ROUTE_LOCALNET.read_text().strip() == "1"

    def open(self, *, wanted: bool) -> None:
        try:
            ROUTE_LOCALNET.write_text(f"{wanted:d}\n")
            self.was_closed |= not wanted
        except OSError as error:
            if not self._refused:
                log.warning("no node ports at 127.0.0.1", path=ROUTE_LOCALNET, wanted=int(wanted), error=error)
            self._refused = True
