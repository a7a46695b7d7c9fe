"""netagent started by flanneld's own command line, on an etcd with TLS and users; everything in one namespace."""

import json
import os
import subprocess
import sys

import pytest
from certificates import Authority
from deadline import PATIENCE_S, eventually
from namespace import fresh_namespace

from lab.etcd import EtcdServer, ServerTls

CONFIG = '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}'
PASSWORD = "a secret"  # noqa: S105 - of a server that lives for a second


class Node:
    def __init__(self, folder):
        self.folder = folder
        self.subnet_file = folder / "flannel/subnet.env"
        authority = Authority(folder / "ca")
        self.ca = authority.certificate
        server, client = authority.issue("etcd"), authority.issue("client")
        tls = ServerTls(self.ca, *server, *client, wants_client=False)
        self.etcd = EtcdServer.on_this_machine(folder / "etcd", tls=tls)

    def wire(self):
        for line in (
            "link add eth0 type veth peer name far0",
            "link set eth0 up",
            "link set far0 up",
            "addr add 192.0.2.1/24 dev eth0",
        ):
            subprocess.run(["ip", *line.split()], check=True)

    def configure(self):
        self.etcd.client_flags = self.etcd.client_flags[:1]
        self.etcd.etcdctl("put", "/kube/network/config", CONFIG)
        self.etcd.etcdctl("user", "add", f"root:{PASSWORD}")
        self.etcd.etcdctl("user", "grant-role", "root", "root")
        self.etcd.etcdctl("auth", "enable")
        self.etcd.client_flags.append(f"--user=root:{PASSWORD}")

    def agent(self, *flags, **environment):
        common = {"PATH": os.environ["PATH"], "RUNTIME_DIRECTORY": str(self.folder / "nodenet")}
        command = [sys.executable, "-m", "netagent", *flags]
        return subprocess.Popen(command, env={**common, **environment}, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def node(tmp_path):
    with fresh_namespace():
        made = Node(tmp_path)
        made.wire()
        made.etcd.start()
        try:
            made.configure()
            yield made
        finally:
            made.etcd.stop()


@pytest.mark.flannel("45", "A9")
def test_the_command_line_of_flanneld_is_enough(node):
    """One dash, values in both ways, a flag of klog, the user in the environment; behind NAT."""
    flags = [
        f"-etcd-endpoints={node.etcd.client_url}",
        "-etcd-prefix",
        "/kube/network",
        f"-etcd-cafile={node.ca}",
        "-etcd-certfile=",
        "--iface=eth7",
        r"-iface-regex=^192\.0\.2\.",
        "-public-ip=198.51.100.1",
        "-vmodule=vxlan=3",
    ]
    environment = {
        "FLANNELD_ETCD_USERNAME": "root",
        "FLANNELD_ETCD_PASSWORD": PASSWORD,
        "FLANNELD_SUBNET_FILE": str(node.subnet_file),
        "FLANNELD_IP_MASQ": "",
    }
    with node.agent(*flags, **environment) as agent:
        try:
            eventually(node.subnet_file.exists)
            key, value = node.etcd.etcdctl("get", "--prefix", "/kube/network/subnets/").splitlines()
            assert json.loads(value)["PublicIP"] == "198.51.100.1"
            subnet = key.rpartition("/")[2].partition("-")[0]
            assert f"FLANNEL_SUBNET={subnet.removesuffix('0')}1/24" in node.subnet_file.read_text()
            device = subprocess.run(
                ["ip", "-d", "link", "show", "flannel.1"], capture_output=True, text=True, check=True
            ).stdout
            assert "local 192.0.2.1 dev eth0" in device
        finally:
            agent.terminate()
            agent.communicate()
    assert agent.returncode == 0


def refusal(node, *flags, **environment):
    with node.agent(*flags, **environment) as agent:
        _, error = agent.communicate(timeout=PATIENCE_S)
    assert agent.returncode == 2
    return error.splitlines()[-1]


def test_a_refused_user_is_named(node):
    given = [f"-etcd-endpoints={node.etcd.client_url}", f"-etcd-cafile={node.ca}", "--etcd-username=root"]
    line = refusal(node, *given, FLANNELD_ETCD_PASSWORD="wrong")  # noqa: S106
    assert f"--etcd-username root: etcd {node.etcd.client_url}: " in line


def test_a_missing_certificate_file_is_named(node):
    line = refusal(node, "-etcd-endpoints=https://127.0.0.1:1", "-etcd-cafile=/nowhere/ca.pem")
    assert line == "netagent: --etcd-cafile /nowhere/ca.pem: No such file or directory"


def test_an_authority_that_is_not_ours_is_waited_for(node, tmp_path):
    """The server may get another certificate: nothing a restart of ours would mend."""
    other = Authority(tmp_path / "other", "other authority")
    with node.agent(f"-etcd-endpoints={node.etcd.client_url}", f"-etcd-cafile={other.certificate}") as agent:
        try:
            line = next(line for line in agent.stderr if "waiting" in line)
            assert "CERTIFICATE_VERIFY_FAILED" in line
            assert agent.poll() is None
        finally:
            agent.terminate()
            agent.communicate()
