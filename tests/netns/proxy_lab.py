"""Labs for tests of netproxy as a process: one node with pods, served by the tests' API server, and no other daemon."""

import copy
import os
import socket
import sys
from contextlib import contextmanager
from pathlib import Path

from api_thread import URL, ServerThread
from apiserver import node
from deadline import becomes
from namespace import inside

from controlloop.client import UnreachableError, get_json
from lab.cluster import Cluster, up
from lab.host import as_daemon
from lab.topology import POD_NETWORK, Spec
from lab.wiring import set_sysctls
from lab.workload import endpoint_slice, service, start_responders

VARIANTS = ("nftables", "iptables-nft", "iptables-legacy")
NODE = "node-1"
SUBNET_ENV = f"FLANNEL_NETWORK={POD_NETWORK}\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1500\nFLANNEL_IPMASQ=false\n"
KUBECONFIG = f"""\
apiVersion: v1
kind: Config
current-context: lab
contexts: [{{name: lab, context: {{cluster: lab, user: netproxy}}}}]
clusters: [{{name: lab, cluster: {{server: "{URL}"}}}}]
users: [{{name: netproxy, user: {{}}}}]
"""
ON_LEGACY = ["sh", "-c", 'mount --bind /run/alternatives /etc/alternatives && exec "$@"', "sh"]
"""A host whose administrator ran `update-alternatives --set iptables /usr/sbin/iptables-legacy`."""
LOCK = "/run/nodenet/xtables.lock"
"""Where the daemon may make it."""
ANSWER_WITHIN_S = 20.0
"""Who does answer takes a millisecond, on a machine that has the time."""
LOOK_AGAIN_S = 0.3
"""For who asks again and again."""


class ProxyLab(Cluster):
    flags = ()

    def build(self, _progress):
        self.lay_out()
        # Refusals in quick succession must all arrive.
        set_sysctls(self.node.namespace, ("net.ipv4.icmp_ratelimit=0",))
        self.server = ServerThread(self.spec.namespace("etcd"))
        self.put_objects("nodes", own_node())
        (self.node.run_dir / "flannel/subnet.env").write_text(SUBNET_ENV)
        (self.node.run_dir / "kubeconfig").write_text(KUBECONFIG)
        choose_legacy(self.node.run_dir / "alternatives")
        for _, pod in self.spec.all_pods:
            self.attach_pod(NODE, pod)
        start_responders(self)
        self.start_daemons([(NODE, "netproxy")])

    def down(self):
        super().down()
        if server := self.__dict__.get("server"):
            server.end()

    @property
    def variant(self):
        return self.spec.mode

    @property
    def node(self):
        return self.host(NODE)

    def daemon_argv(self, node, program):
        legacy = self.variant == "iptables-legacy"
        flags = ["--kubeconfig=/run/kubeconfig", f"--hostname-override={node}", f"--cluster-cidr={POD_NETWORK}"]
        flags += [f"--proxy-mode={self.variant.partition('-')[0]}", *self.flags]
        argv = [str(Path(sys.executable).parent / program), *flags]
        return [*ON_LEGACY, *as_daemon(argv, ("net_admin", "net_raw"))] if legacy else as_daemon(argv)

    def start(self, host, program, argv, environment=None):
        return super().start(host, program, argv, {"XTABLES_LOCKFILE": LOCK, **(environment or {})})

    def sh(self, script, *, check=True):
        """Run by root on the node, under the lock that the daemon takes."""
        return self.node.run(["env", f"XTABLES_LOCKFILE={LOCK}", "sh", "-ec", script], check=check)

    # -- what is served -------------------------------------------------------------------------------------------

    def put_objects(self, plural, *objects):
        self.server.do(lambda api: [api.put(plural, one) for one in objects])

    def serve(self, name, address, pods, *, protocol="TCP", target_port=8080, annotations=None, status=None, **spec):
        """A Service at port 80 with these pods behind it, or with others than before."""
        made = service(name, address, protocol=protocol)
        made["metadata"]["annotations"] = annotations or {}
        made["spec"] |= spec
        made["status"] = status or {}
        self.put_objects("services", made)
        self.back(name, pods, protocol=protocol, port=target_port)

    def back(self, name, pods, *, protocol="TCP", port=8080, by_pod=None):
        """These pods serve it; `by_pod` has the conditions of those that are not just ready."""
        made = endpoint_slice(name, self, pods, protocol=protocol, port=port)
        for pod, endpoint in zip(pods, made["endpoints"], strict=True):
            endpoint["conditions"] = (by_pod or {}).get(pod, {})
        self.put_objects("endpointslices", made)

    def take_away(self, name):
        def job(api):
            api.delete("services", name, "default")
            api.delete("endpointslices", f"{name}-1", "default")

        self.server.do(job)

    # -- what the daemon says -------------------------------------------------------------------------------------

    def status(self):
        try:
            return get_json(self.node.run_dir / "nodenet/netproxy.sock", "/status")
        except UnreachableError:
            return {"ready": False}

    def is_ready(self):
        return self.status()["ready"]

    def repairs(self, kind=None):
        """Of IPv4's rules, by kind or all."""
        rules = self.status()["rules"][f"{self.variant.partition('-')[0]}-ip"]
        return rules["repairs"].get(kind, 0) if kind else rules["repaired"]

    def page(self, url, host=NODE):
        """(status, body) of a page as `host` gets it."""
        argv = ["curl", "-s", "-g", "--connect-timeout", "1", "-m", "30", "-o", "-", "-w", "\n%{http_code}", url]
        body, _, status = self.host(host).run(argv, check=False).rpartition("\n")
        return int(status), body

    def metrics(self):
        """Value by name with labels, as the page has them."""
        _, text = self.page("http://127.0.0.1:10249/metrics")
        lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def events(self, reason):
        return self.server.do(lambda api: [each for each in api.objects["events"].values() if each["reason"] == reason])

    # -- who answers ----------------------------------------------------------------------------------------------

    def call(self, caller, address, port=80, *, within_s=ANSWER_WITHIN_S):
        """The pod that a new TCP connection lands on, or `refused`, `timeout`."""
        try:
            with self.connection(caller, address, port, within_s=within_s) as held:
                return held.recv(256).decode().split()[0]
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "timeout"

    def connection(self, caller, address, port=80, *, within_s=ANSWER_WITHIN_S):
        with inside(self.spec.namespace(caller)):
            return socket.create_connection((address, port), timeout=within_s)

    @contextmanager
    def datagrams(self, caller, address, port=80):
        """A function that sends a datagram from always the same port, and gives back who answered it in time."""
        with inside(self.spec.namespace(caller)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
            held.connect((address, port))  # or nobody tells it of a refusal

            def ask(within_s=ANSWER_WITHIN_S):
                forget_late_answers(held)
                held.settimeout(within_s)
                try:
                    held.send(b"hello\n")
                    return held.recv(256).decode().split()[0]
                except (ConnectionRefusedError, PermissionError):
                    return "refused"
                except TimeoutError:
                    return "timeout"

            yield ask

    def answers(self, address, pods, *, caller="pod-1-3", port=80):
        """Wait until it is answered by these and no others."""
        becomes(lambda: {self.call(caller, address, port, within_s=0.5) for _ in range(6 * len(pods))}, set(pods))


def forget_late_answers(held):
    """To what was asked before."""
    held.setblocking(False)
    while True:
        try:
            held.recv(256)
        except ConnectionRefusedError:
            continue
        except BlockingIOError:
            return


def own_node(**metadata):
    made = copy.deepcopy(node(NODE, "10.244.1.0/24", **metadata))
    made["status"]["addresses"] = [{"type": "InternalIP", "address": "10.10.0.1"}]
    return made


def choose_legacy(folder):
    """A copy of /etc/alternatives in which iptables is the legacy variant."""
    folder.mkdir()
    for link in filter(Path.is_symlink, Path("/etc/alternatives").iterdir()):
        target = str(link.readlink())
        if link.name.startswith(("iptables", "ip6tables")):
            target = target.replace("-nft", "-legacy")
        (folder / link.name).symlink_to(target)


def bring_up_proxy(variant, *, pods=3, flags=(), name="proxy"):
    kind = type("Lab", (ProxyLab,), {"flags": tuple(flags)})
    spec = Spec(f"{name}{os.getpid()}-{variant.replace('-', '')[-6:]}", nodes=1, pods_per_node=pods, mode=variant)
    return up(spec, owned=True, kind=kind)
