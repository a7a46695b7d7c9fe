"""The flags of netproxy: kube-proxy's, with its names and defaults, and ours beside them.

Kube-proxy's flags are another way to write its configuration: each stands for one field of it, or for one in each mode.
"""

from collections.abc import Mapping

from controlloop.etcd_settings import etcd_flags
from controlloop.goflags import Flag, Group, repeated, switch

PASSWORD_VARIABLE = "NETPROXY_ETCD_PASSWORD"  # noqa: S105 - its name, not its value

CONFIGURATION: Group = (
    "configuration",
    (
        Flag("config", "FILE", "", "KubeProxyConfiguration; kube-proxy's flags below then count for nothing"),
        Flag("write-config-to", "FILE", "", "write what the flags mean as such a file, and exit"),
        Flag("hostname-override", "NAME", "", "this node's name; default: the host's"),
    ),
)

SOURCE: Group = (
    "where Services come from; default: kubernetes with a kubeconfig or in a pod, else etcd",
    (
        Flag("source", "NAME", "", "kubernetes, etcd or files"),
        Flag("kubeconfig", "FILE", "", "address of the API server, CA and credentials"),
        Flag("master", "URL", "", "API server; wins over the kubeconfig's"),
        Flag("manifests", "DIR", "", "directory of YAML or JSON manifests; it is watched"),
        *etcd_flags("http://127.0.0.1:2379", "/nodenet", PASSWORD_VARIABLE),
    ),
)

NODE: Group = (
    "node",
    (
        Flag("bind-address", "IP", "0.0.0.0", "the node's own address, unless it is unspecified"),  # noqa: S104
        Flag("node-zone", "NAME", "", "with etcd and files: the node's zone, for topology hints"),
        Flag("detect-local-mode", "MODE", "ClusterCIDR", "how to tell pods; see the next three, and NodeCIDR"),
        Flag("cluster-cidr", "CIDR[,CIDR]", "", "ClusterCIDR: by this network; callers from elsewhere are masqueraded"),
        Flag("pod-bridge-interface", "NAME", "", "BridgeInterface: they are behind this bridge"),
        Flag("pod-interface-name-prefix", "TEXT", "", "InterfaceNamePrefix: they are behind interfaces named so"),
        Flag("oom-score-adj", "NUMBER", "-999", "of this process, from -1000 to 1000"),
    ),
)

SERVICES: Group = (
    "services",
    (
        Flag("proxy-mode", "MODE", "iptables", "iptables or nftables"),
        Flag("balance", "WAY", "random", "or round-robin, weighted; in nftables mode source-hash, consistent"),
        Flag("external-ip-ranges", "CIDR[,CIDR]", "", "only these may be external IPs and load balancer addresses"),
        Flag("drain-timeout", "DURATION", "", "reset TCP connections to an endpoint that long after it is gone"),
        switch("service-counters", "false", "count connections and bytes of each Service in /metrics (needs nft)"),
        repeated("nodeport-addresses", "CIDR[,CIDR]", "serve node ports at these addresses of the node; or: primary"),
        switch("masquerade-all", "false", "masquerade every connection to a ClusterIP"),
        Flag("iptables-masquerade-bit", "NUMBER", "14", "of the packet mark"),
        switch("iptables-localhost-nodeports", "true", "serve node ports at 127.0.0.1 too"),
        Flag("iptables-sync-period", "DURATION", "30s", "check all rules that often"),
        Flag("iptables-min-sync-period", "DURATION", "1s", "accepted and without effect: changes are never put off"),
    ),
)

CONNTRACK: Group = (
    "conntrack; 0 leaves the kernel's value",
    (
        Flag("conntrack-max-per-core", "NUMBER", "32768", "connections for each CPU"),
        Flag("conntrack-min", "NUMBER", "131072", "and at least so many"),
        Flag("conntrack-tcp-timeout-established", "DURATION", "24h0m0s", "a TCP connection that is open"),
        Flag("conntrack-tcp-timeout-close-wait", "DURATION", "1h0m0s", "one that we did not close yet"),
        switch("conntrack-tcp-be-liberal", "false", "do not mark packets out of window invalid"),
        Flag("conntrack-udp-timeout", "DURATION", "0s", "a UDP flow without answer"),
        Flag("conntrack-udp-timeout-stream", "DURATION", "0s", "one with answers"),
    ),
)

OPERATION: Group = (
    "operation",
    (
        Flag("healthz-bind-address", "IP[:PORT]", "0.0.0.0:10256", "serve /healthz and /livez here; empty: nowhere"),
        Flag("metrics-bind-address", "IP[:PORT]", "127.0.0.1:10249", "serve /metrics here; empty: nowhere"),
        Flag("healthz-port", "PORT", "", "deprecated; 0: nowhere"),
        Flag("metrics-port", "PORT", "", "deprecated; 0: nowhere"),
        switch("bind-address-hard-fail", "false", "exit when one of them cannot be had; without it: try again"),
        switch("init-only", "false", "set sysctls, which needs more rights than all else, and exit"),
        switch("cleanup", "false", "remove all rules of ours, in every mode, and exit"),
        Flag("v", "LEVEL", "0", "from 4 on every step is logged"),
        switch("version", "false", "print the version, and exit"),
        switch("help", "false", "print this, and exit"),
        switch("h", "false", ""),
    ),
)

IPVS = ("exclude-cidrs", "min-sync-period", "scheduler", "sync-period", "tcp-timeout", "tcpfin-timeout", "udp-timeout")

WITHOUT_EFFECT: Group = (
    "kube-proxy's, accepted and without effect",
    (
        switch("profiling", "false", ""),
        switch("ipvs-strict-arp", "false", ""),
        *(Flag(f"ipvs-{name}", "", "", "") for name in IPVS),
        *(Flag(f"kube-api-{name}", "", "", "") for name in ("burst", "content-type", "qps")),
        *(
            Flag(name, "", "", "")
            for name in ("config-sync-period", "feature-gates", "show-hidden-metrics-for-version")
        ),
        *(Flag(name, "", "", "") for name in ("logging-format", "log-flush-frequency", "vmodule")),
    ),
)

SHOWN = (CONFIGURATION, SOURCE, NODE, SERVICES, CONNTRACK, OPERATION)
GROUPS = (*SHOWN, WITHOUT_EFFECT)

FIELDS: Mapping[str, tuple[str, ...]] = {
    "bind-address": ("bindAddress",),
    "bind-address-hard-fail": ("bindAddressHardFail",),
    "cluster-cidr": ("clusterCIDR",),
    "conntrack-max-per-core": ("conntrack.maxPerCore",),
    "conntrack-min": ("conntrack.min",),
    "conntrack-tcp-be-liberal": ("conntrack.tcpBeLiberal",),
    "conntrack-tcp-timeout-close-wait": ("conntrack.tcpCloseWaitTimeout",),
    "conntrack-tcp-timeout-established": ("conntrack.tcpEstablishedTimeout",),
    "conntrack-udp-timeout": ("conntrack.udpTimeout",),
    "conntrack-udp-timeout-stream": ("conntrack.udpStreamTimeout",),
    "detect-local-mode": ("detectLocalMode",),
    "healthz-bind-address": ("healthzBindAddress",),
    "iptables-localhost-nodeports": ("iptables.localhostNodePorts",),
    "iptables-masquerade-bit": ("iptables.masqueradeBit",),
    "iptables-min-sync-period": ("iptables.minSyncPeriod", "nftables.minSyncPeriod"),
    "iptables-sync-period": ("iptables.syncPeriod", "nftables.syncPeriod"),
    "kubeconfig": ("clientConnection.kubeconfig",),
    "masquerade-all": ("iptables.masqueradeAll", "nftables.masqueradeAll"),
    "metrics-bind-address": ("metricsBindAddress",),
    "nodeport-addresses": ("nodePortAddresses",),
    "oom-score-adj": ("oomScoreAdj",),
    "pod-bridge-interface": ("detectLocal.bridgeInterface",),
    "pod-interface-name-prefix": ("detectLocal.interfaceNamePrefix",),
    "proxy-mode": ("mode",),
}
"""What a flag of kube-proxy is in its configuration."""

USAGE = """\
Usage: netproxy [flags]

Program load balancing for the cluster's Services on this node, and keep it right. Rules outlive the daemon: stopping or
killing it moves no packet; only --cleanup removes them. A flag is `--flag value` or `--flag=value`, a switch `--flag`
or `--flag=false`. NETPROXY_ETCD_PASSWORD in the environment stands for --etcd-password. Flags of kube-proxy that are
not listed here are accepted and have no effect."""
