"""Two nodes with an agent each, on an etcd with TLS: what the tests of backends start, and how they judge."""

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from certificates import Authority
from deadline import PATIENCE_S, eventually
from node_pair import V4, V6, Pair

from lab.etcd import ServerTls, etcd_argv, health_argv
from netagent.subnet_file import read_subnets

ETCD = "https://[2001:db8::1]:2379"
RANGES = {V4: {"Network": "10.6.0.0/16"}, V6: {"IPv6Network": "fd00:6::/48", "EnableIPv6": True}}
NETWORK_KEY = {V4: "Network", V6: "IPv6Network"}
DEVICE = {V4: "flannel.1", V6: "flannel-v6.1"}
NETAGENT = str(Path(sys.executable).parent / "netagent")

needs_wireguard = pytest.mark.skipif(
    shutil.which("wg") is None or shutil.which("wireguard-go") is None or not Path("/dev/net/tun").exists(),
    reason="needs wireguard-tools, wireguard-go and /dev/net/tun",
)


@contextmanager
def cluster(folder):
    """A Pair with etcd on its first node; clients show a certificate."""
    pair = Pair(folder)
    authority = Authority(folder / "ca")
    pair.tls = ServerTls(
        authority.certificate, *authority.issue("etcd", "IP:2001:db8::1"), *authority.issue("client"), wants_client=True
    )
    argv = etcd_argv(folder, client_url=ETCD, peer_url="http://127.0.0.1:2380") + pair.tls.server_flags
    try:
        pair.up()
        with (folder / "etcd.log").open("wb") as log, pair.hosts[1].popen(argv, stdout=log, stderr=log) as server:
            try:
                eventually(lambda: pair.hosts[1].succeeds(health_argv(ETCD, pair.tls.client_flags)))
                yield pair
            finally:
                server.terminate()
    finally:
        pair.down()


def etcdctl(pair, *words):
    return pair.hosts[1].run(["etcdctl", "--endpoints", ETCD, *pair.tls.client_flags, *words])


def forget_leases(pair):
    """As if no agent had run here before; their pods go, too."""
    etcdctl(pair, "del", "--prefix", "/coreos.com/network/subnets/")
    for number in pair.hosts:
        subnet_env(pair, number).unlink(missing_ok=True)
        for family, network in RANGES.items():
            pair.shows(f"ip -{family.value} addr flush dev lo to {network[NETWORK_KEY[family]]}", number)


def agent_argv(pair, number, *flags):
    tls = pair.tls
    return [
        NETAGENT,
        f"--etcd-endpoints={ETCD}",
        f"--etcd-cafile={tls.ca}",
        f"--etcd-certfile={tls.client_certificate}",
        f"--etcd-keyfile={tls.client_key}",
        f"--node-name={pair.hosts[number].name}",
        "--iface=eth0",
        *flags,
    ]


@contextmanager
def agents(pair, families, backend, flags=(), **more):
    """Both agents on one configuration, until what they say is in the subnet file.

    `flags`: more, for each of them; `more`: of the configuration.
    """
    config = {"EnableIPv4": V4 in families, "Backend": backend, **more}
    for family in families:
        config |= RANGES[family]
    etcdctl(pair, "put", "/coreos.com/network/config", json.dumps(config))
    running = []
    try:
        for number, host in pair.hosts.items():
            subnet_env(pair, number).unlink(missing_ok=True)
            own = flags[number - 1] if flags else ()
            with (host.folder / "netagent.log").open("ab") as log:
                running.append(host.popen(agent_argv(pair, number, *own), stdout=log, stderr=subprocess.STDOUT))
        for number in pair.hosts:
            eventually(lambda number=number: subnet_env(pair, number).exists())
        yield
    finally:
        for each in running:
            each.terminate()
        for each in running:
            each.wait(PATIENCE_S)


def subnet_env(pair, number):
    return pair.hosts[number].run_dir / "flannel" / "subnet.env"


def pod(pair, number, family):
    """The first address of a node's subnet, where its bridge would be; made there if need be."""
    address = read_subnets(subnet_env(pair, number))[family][1]
    nodad = ["nodad"] if family is V6 else []
    pair.hosts[number].run(["ip", "addr", "replace", f"{address}/{family.bits}", "dev", "lo", *nodad])
    return address


def reach_each_other(pair, families, mtu):
    """A packet of the size that the subnet file promises gets there and back, whoever begins."""
    assert f"FLANNEL_MTU={mtu}\n" in subnet_env(pair, 1).read_text()
    for family in families:
        pods = {number: str(pod(pair, number, family)) for number in pair.hosts}
        size = str(mtu - (28 if family is V4 else 48))
        for here, there in ((1, 2), (2, 1)):
            ping = ["ping", "-c1", "-W1", "-M", "do", "-s", size, "-I", pods[here], pods[there]]
            eventually(lambda here=here, ping=ping: pair.hosts[here].succeeds(ping))
