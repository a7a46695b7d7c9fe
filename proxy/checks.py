"""The fields of a KubeProxyConfiguration as what they mean. Pure; a refusal names flag or field, and value."""

import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from controlloop.durations import parse_duration
from controlloop.family import Family, IPAddress, IPNetwork
from proxy.config import ConntrackSettings, Detection, DetectLocal, Listener, NodePortAddresses, ProxyMode
from proxy.configuration import Configured, Iptables, Nftables

PRIMARY = "primary"

INTERFACE_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,15}")
"""What the kernel takes and a rule can hold (dev_valid_name: at most 15 bytes, no slash, colon or blank)."""


class Checked:
    """Each method gives one setting, or an OperatorError for the field that it stands in."""

    def __init__(self, configured: Configured) -> None:
        self._configured = configured
        self._content = configured.content

    def mode(self) -> ProxyMode:
        text = self._content.mode
        try:
            return ProxyMode(text)
        except ValueError:
            pass
        if text == "ipvs":
            raise self._configured.refused("mode", text, "not supported; use nftables, or else iptables")
        raise self._configured.refused("mode", text, "want iptables or nftables")

    def bind_address(self) -> IPAddress | None:
        address = self._address("bindAddress", self._content.bind_address)
        return None if address.is_unspecified else address

    def detection(self, *, knows_nodes: bool) -> Detection:
        """`knows_nodes`: the source has Node objects."""
        text = self._content.detect_local_mode
        try:
            mode = DetectLocal(text)
        except ValueError:
            raise self._configured.refused(
                "detectLocalMode", text, f"want {', '.join(mode.value for mode in DetectLocal)}"
            ) from None
        if mode is DetectLocal.NODE_CIDR and not knows_nodes:
            raise self._configured.refused("detectLocalMode", text, "podCIDRs are known with --source kubernetes alone")
        return Detection(mode, self._cluster_cidrs(), self._interface(mode))

    def node_port_addresses(self) -> NodePortAddresses:
        texts = self._content.node_port_addresses
        if texts == (PRIMARY,):
            return NodePortAddresses(primary=True)
        return NodePortAddresses(networks=tuple(self._networks("nodePortAddresses", texts)))

    def masquerade_all(self) -> bool:
        return self._mode_section.masquerade_all

    def masquerade_bit(self) -> int:
        for name, section in self._sections:
            self.number(f"{name}.masqueradeBit", section.masquerade_bit, 0, 31)
        return self._mode_section.masquerade_bit

    def sync_period_s(self) -> float:
        for name, section in self._sections:
            period_s = self._seconds(f"{name}.syncPeriod", section.sync_period, positive=True)
            if self._seconds(f"{name}.minSyncPeriod", section.min_sync_period) > period_s:
                raise self._configured.refused(
                    f"{name}.minSyncPeriod", section.min_sync_period, f"longer than syncPeriod {section.sync_period}"
                )
        self._seconds("configSyncPeriod", self._content.config_sync_period, positive=True)
        return parse_duration(self._mode_section.sync_period)

    def conntrack(self) -> ConntrackSettings:
        said = self._content.conntrack
        return ConntrackSettings(
            max_per_core=self.number("conntrack.maxPerCore", said.max_per_core, 0, 2**31 - 1),
            min=self.number("conntrack.min", said.min, 0, 2**31 - 1),
            tcp_established_s=self._seconds("conntrack.tcpEstablishedTimeout", said.tcp_established_timeout),
            tcp_close_wait_s=self._seconds("conntrack.tcpCloseWaitTimeout", said.tcp_close_wait_timeout),
            tcp_be_liberal=said.tcp_be_liberal,
            udp_s=self._seconds("conntrack.udpTimeout", said.udp_timeout),
            udp_stream_s=self._seconds("conntrack.udpStreamTimeout", said.udp_stream_timeout),
        )

    def listener(self, path: str, text: str | None) -> Listener | None:
        if not text:
            return None
        host, _, port = text.rpartition(":")
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
            raise self._configured.refused(path, text, "want IP:PORT")
        address = self._address(path, host.removeprefix("[").removesuffix("]"), shown=text)
        return Listener(address, int(port), self._configured.name(path))

    def number(self, path: str, value: int, low: int, high: int) -> int:
        if not low <= value <= high:
            raise self._configured.refused(path, value, f"want a whole number from {low} to {high}")
        return value

    @property
    def _sections(self) -> tuple[tuple[str, Iptables | Nftables], ...]:
        return ("iptables", self._content.iptables), ("nftables", self._content.nftables)

    @property
    def _mode_section(self) -> Iptables | Nftables:
        return self._content.nftables if self._content.mode == "nftables" else self._content.iptables

    def _cluster_cidrs(self) -> dict[Family, IPNetwork]:
        text = self._content.cluster_cidr
        found: dict[Family, IPNetwork] = {}
        for network in self._networks("clusterCIDR", filter(None, map(str.strip, text.split(",")))):
            if Family.of(network) in found:
                raise self._configured.refused("clusterCIDR", text, f"two IPv{network.version} networks")
            found[Family.of(network)] = network
        return found

    def _interface(self, mode: DetectLocal) -> str:
        """The name that the mode asks for; empty when it asks for none."""
        said = self._content.detect_local
        if mode is DetectLocal.BRIDGE_INTERFACE:
            path, name = "detectLocal.bridgeInterface", said.bridge_interface
        elif mode is DetectLocal.INTERFACE_NAME_PREFIX:
            path, name = "detectLocal.interfaceNamePrefix", said.interface_name_prefix
        else:
            return ""
        if not INTERFACE_NAME.fullmatch(name):
            raise self._configured.refused(path, name, f"detectLocalMode {mode.value} needs the name of an interface")
        return name

    def _networks(self, path: str, texts: Iterable[str]) -> Iterable[IPNetwork]:
        """Host bits do not count, as in Go."""
        for text in texts:
            try:
                yield ip_network(text if "/" in text else "", strict=False)
            except ValueError:
                reason = "primary stands alone" if text == PRIMARY else "not a network in CIDR form"
                raise self._configured.refused(path, text, reason) from None

    def _address(self, path: str, text: str, shown: str = "") -> IPAddress:
        try:
            return ip_address("" if "%" in text else text)
        except ValueError:
            raise self._configured.refused(path, shown or text, "not an IP address") from None

    def _seconds(self, path: str, text: str, *, positive: bool = False) -> float:
        try:
            seconds = parse_duration(text)
        except ValueError:
            raise self._configured.refused(path, text, "want a length of time such as 30s or 1h30m") from None
        if seconds < 0 or (positive and not seconds):
            raise self._configured.refused(path, text, "must be above 0" if positive else "must not be below 0")
        return seconds
