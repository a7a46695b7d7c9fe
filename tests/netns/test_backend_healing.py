"""What somebody breaks comes back in IPv6 and with every backend, and packets flow again. One pair for each backend.

In IPv4 over VXLAN: test_self_healing.
"""

import json
from operator import itemgetter

import pytest
from agent_pair import agents, cluster, needs_wireguard, pod
from deadline import eventually
from node_pair import V4, V6

from controlloop.client import get_json
from controlloop.family import Family
from lab.host import ProgramError

DUAL = [V4, V6]

VXLAN_V6 = {
    "route deleted": "ip route del {subnet6}",
    "route replaced": "ip route replace {subnet6} via fd00:6:0:ff:: dev flannel-v6.1 onlink proto 78",
    "route added": "ip route add fd00:6:0:ff::/64 via {gateway6} dev flannel-v6.1 onlink proto 78",
    "routes flushed": "ip -6 route flush proto 78",
    "neighbor deleted": "ip neigh del {gateway6} dev flannel-v6.1",
    "neighbor changed": "ip neigh replace {gateway6} lladdr 02:bb:bb:bb:bb:bb dev flannel-v6.1",
    "FDB entry deleted": "bridge fdb del {mac6} dev flannel-v6.1",
    "FDB entry changed": "bridge fdb replace {mac6} dev flannel-v6.1 dst 2001:db8::77",
    "address deleted": "ip -6 address flush dev flannel-v6.1 scope global",
    "address added": "ip address add fd00:77::1/64 dev flannel-v6.1 nodad",
    "MTU changed": "ip link set flannel-v6.1 mtu 1290",
    "MAC changed": "ip link set flannel-v6.1 address 02:bb:bb:bb:bb:bb",
    "link down": "ip link set flannel-v6.1 down",
    "link deleted": "ip link del flannel-v6.1",
    "both links deleted": "ip link del flannel-v6.1; ip link del flannel.1",
    "rule deleted": "ip6tables -D NETAGENT-FORWARD 1",
    "chain flushed": "ip6tables -F NETAGENT-FORWARD",
    "jump deleted": "ip6tables -D FORWARD -j NETAGENT-FORWARD",
    "masquerading flushed": "ip6tables -t nat -F",
    "table deleted": "nft delete table ip6 netagent",
}
NFTABLES = {
    "rules flushed": "nft flush table ip6 netagent",
    "chain flushed": "nft flush chain ip6 netagent forward",
    "rule added": "nft insert rule ip6 netagent input drop",
    "table deleted": "nft delete table ip6 netagent",
    "peer deleted": "nft flush set ip6 netagent peers",
    "everything flushed": "nft flush ruleset",
}
NIC_DOWN = "ip link set eth0 down; ip link set eth0 up"
DIRECT = {
    "IPv4 route deleted": "ip route del {subnet4}",
    "IPv6 route deleted": "ip route del {subnet6}",
    "IPv4 route replaced": "ip route replace {subnet4} via 192.0.2.77 dev eth0 proto 78",
    "IPv6 route replaced": "ip route replace {subnet6} via 2001:db8::77 dev eth0 proto 78",
    "routes flushed": "ip route flush proto 78; ip -6 route flush proto 78",
    "NIC down": NIC_DOWN,
}
DIRECT_ROUTING = {**DIRECT, "device deleted": "ip link del flannel.1; ip link del flannel-v6.1"}
WIREGUARD_DEVICES = {"flannel-wg", "flannel-wg-v6"}
WIREGUARD = {
    "peer removed": "wg set flannel-wg peer {key4} remove",
    "IPv6 peer removed": "wg set flannel-wg-v6 peer {key6} remove",
    "allowed IPs changed": "wg set flannel-wg peer {key4} allowed-ips 10.99.0.0/24",
    "foreign peer added": "wg set flannel-wg peer bm9ib2R5LXdlLWtub3ctbm9ib2R5LXdlLWtub3ctMDA= allowed-ips {subnet4}",
    "port changed": "wg set flannel-wg listen-port 51999",
    "IPv4 route deleted": "ip route del 10.6.0.0/16",
    "IPv6 route deleted": "ip route del fd00:6::/48",
    "IPv4 address deleted": "ip address flush dev flannel-wg",
    "IPv6 address deleted": "ip -6 address flush dev flannel-wg-v6 scope global",
    "MTU changed": "ip link set flannel-wg mtu 1300",
    "IPv6 MTU changed": "ip link set flannel-wg-v6 mtu 1300",
    "link down": "ip link set flannel-wg down",
    "IPv6 link down": "ip link set flannel-wg-v6 down",
    "link deleted": "ip link del flannel-wg",
    "IPv6 link deleted": "ip link del flannel-wg-v6",
    "NIC down": NIC_DOWN,
}
BACKENDS = {
    "vxlan": ({"Type": "vxlan"}, VXLAN_V6, []),
    "nftables": ({"Type": "vxlan"}, NFTABLES, []),
    "host-gw": ({"Type": "host-gw"}, DIRECT, []),
    "DirectRouting": ({"Type": "vxlan", "DirectRouting": True}, DIRECT_ROUTING, []),
    "wireguard": ({"Type": "wireguard", "PersistentKeepaliveInterval": 1}, WIREGUARD, [needs_wireguard]),
}
CASES = [
    pytest.param(name, (name, what), marks=marks, id=f"{name} {what}")
    for name, (_, drifts, marks) in BACKENDS.items()
    for what in drifts
]


class Running:
    """A pair whose agents run, and what is to be found on its first node."""

    def __init__(self, pair):
        self.pair = pair
        self.pods = {family: [str(pod(pair, number, family)) for number in (1, 2)] for family in DUAL}
        # Or the kernel takes the address away with the link, and etcd is behind it.
        for number in (1, 2):
            pair.shows("sysctl -qw net.ipv6.conf.eth0.keep_addr_on_down=1", number)
        eventually(lambda: self.is_ready() and self.flows())
        self.peer = self._peer()

    def _peer(self):
        subnets = {family: self.pods[family][1].removesuffix("1") for family in DUAL}
        links = json.loads(self.pair.shows("ip -j link show", 2))
        macs = {link["ifname"]: link.get("address", "") for link in links if link["ifname"].startswith("flannel")}
        return {
            "subnet4": f"{subnets[V4]}0/24",
            "subnet6": f"{subnets[V6]}/64",
            "gateway6": subnets[V6],
            "mac6": macs.get("flannel-v6.1", ""),
            "key4": self._wireguard_key("flannel-wg"),
            "key6": self._wireguard_key("flannel-wg-v6"),
        }

    def _wireguard_key(self, device):
        return self.pair.hosts[2].run(["wg", "show", device, "public-key"], check=False).strip()

    def break_it(self, commands):
        for command in commands.format(**self.peer).split("; "):
            self.pair.shows(command)

    def status(self):
        return get_json(self.pair.hosts[1].run_dir / "nodenet" / "netagent.sock", "/status")

    def is_ready(self):
        return self.status()["ready"]

    def flows(self):
        pings = (["ping", "-c1", "-W1", "-I", *self.pods[family]] for family in DUAL)
        return all(self.pair.hosts[1].succeeds(ping) for ping in pings)

    def state(self):
        """All that the agent keeps on its node, without counters and what the kernel numbers."""
        return {
            "links": sorted(self._links()),
            **{command: self._lines(command) for command in self._commands()},
            "gate": [self._table(family) for family in Family],
            "iptables": [line for line in self._lines("iptables-save") if "NETAGENT" in line],
            "ip6tables": [line for line in self._lines("ip6tables-save") if "NETAGENT" in line],
        }

    def _links(self):
        for link in json.loads(self.pair.shows("ip -j link show")):
            if link["ifname"].startswith("flannel"):
                yield link["ifname"], link.get("address"), link["mtu"], "UP" in link["flags"], link.get("ifalias")

    def _commands(self):
        for device in sorted(self.pair.devices()):
            yield f"ip -br address show dev {device} scope global"
            yield f"ip neigh show dev {device} nud permanent"
            yield f"bridge fdb show dev {device}"
            if device in WIREGUARD_DEVICES:
                yield f"wg show {device} allowed-ips"
                yield f"wg show {device} listen-port"
        for family in Family:
            yield f"ip -{family.value} route show proto 78"

    def _table(self, family):
        """Empty for a backend without VXLAN: there is nothing to guard."""
        return self.pair.hosts[1].run(["nft", "-s", "list", "table", family.nft, "netagent"], check=False)

    def _lines(self, command):
        return sorted(line.strip() for line in self.pair.shows(command).splitlines())


@pytest.fixture(scope="module")
def running(request, tmp_path_factory):
    backend, _, _ = BACKENDS[request.param]
    config = {"EnableNFTables": request.param == "nftables"}
    with (
        cluster(tmp_path_factory.mktemp("pair")) as pair,
        agents(pair, DUAL, backend, flags=[["--ip-masq"]] * 2, **config),
    ):
        yield Running(pair)


@pytest.mark.flannel("38", "39", "B1", "B2", "B3")
# The scope lets all cases of a backend share one pair.
@pytest.mark.parametrize(("running", "case"), CASES, indirect=["running"], scope="module")
def test_drift_is_repaired_and_packets_flow(running, case):
    backend, what = case
    before = running.state()
    running.break_it(BACKENDS[backend][1][what])
    eventually(lambda: is_back(running, before))
    eventually(running.flows)
    eventually(running.status, that=itemgetter("ready"))


def is_back(running, before):
    try:
        actual = running.state()
    except ProgramError:  # a device or table is not there yet
        return False
    assert actual == before
    return True
