"""The flags of netagent: flanneld's, with its names and defaults, and ours beside them."""

from controlloop.etcd_settings import etcd_flags
from controlloop.goflags import Flag, Group, repeated, switch
from netagent.instance import LIMIT

PREFIX = "FLANNELD_"

SUBNET_FILE = "/run/flannel/subnet.env"

ETCD: Group = (
    "etcd",
    (*etcd_flags("http://127.0.0.1:4001,http://127.0.0.1:2379", "/coreos.com/network", f"{PREFIX}ETCD_PASSWORD"),),
)

KUBERNETES: Group = (
    "Kubernetes instead of etcd",
    (
        switch("kube-subnet-mgr", "false", "take subnets from the Node objects"),
        Flag("kube-api-url", "URL", "", "API server; with neither this nor a kubeconfig: as a pod"),
        Flag("kubeconfig-file", "FILE", "", "address, CA and credentials"),
        Flag("kube-annotation-prefix", "NAME", "flannel.alpha.coreos.com", "of the annotations on a Node"),
        Flag("net-config-path", "FILE", "/etc/kube-flannel/net-conf.json", "network configuration"),
        switch("set-node-network-unavailable", "true", "clear the Node's condition once the network is up"),
    ),
)

UNDERLAY: Group = (
    "underlay interface; the first that matches, without any the one of the default route",
    (
        repeated("iface", "NAME|IP", "this one, or the next (may be given more than once)"),
        repeated("iface-regex", "REGEX", "one whose address or else name matches (may be given more than once)"),
        Flag("iface-can-reach", "IP", "", "the one that the kernel would send to IP by"),
        Flag("public-ip", "IP", "", "where peers send to; without --iface* it also names the interface"),
        Flag("public-ipv6", "IP", "", "the same for IPv6"),
    ),
)

LEASE: Group = (
    "lease and node",
    (
        Flag("node-name", "NAME", "", "default: NODE_NAME, else the node of Pod POD_NAME, else the host's name"),
        Flag("instance", "NUMBER", "0", f"up to {LIMIT}: for an agent beside others, one for each overlay of the node"),
        Flag("subnet-file", "FILE", SUBNET_FILE, "what CNI plugins read"),
        Flag("subnet-lease-renew-margin", "MINUTES", "60", "renew at the latest so long before the end"),
    ),
)

FIREWALL: Group = (
    "firewall and routes",
    (
        switch("ip-masq", "false", "masquerade what leaves the overlay"),
        repeated("ip-masq-exclude", "CIDR[,CIDR]", "not when it goes there (may be given more than once)"),
        switch("ip-masq-fully-random-disable", "false", "let the kernel keep source ports when it masquerades"),
        switch("iptables-forward-rules", "true", "accept forwarding from and to the overlay"),
        Flag("iptables-resync", "SECONDS", "5", "look after iptables rules that often"),
        repeated("service-cidr", "CIDR[,CIDR]", "service addresses: no peer may claim them"),
        switch("no-peer-filter", "false", "take VXLAN from any address, for peers behind NAT"),
        switch("tx-checksum-off", "false", "switch off checksum offload on the overlay's device"),
        switch("no-probe", "false", "do not probe peers"),
        switch("ip-blackhole-route", "false", "drop what goes to our subnet and is no pod's, where no bridge does"),
    ),
)

OPERATION: Group = (
    "operation",
    (
        Flag("healthz-ip", "IP", "0.0.0.0", "listen here for /healthz, /readyz and /metrics"),  # noqa: S104 - flannel's
        Flag("healthz-port", "PORT", "0", "0: only on the unix socket"),
        switch("cleanup", "false", "remove our devices, routes and the subnet file, and exit", from_environment=False),
        Flag("install-cni", "DIR", "", "put the CNI plugin `flannel` into DIR, and exit", from_environment=False),
        Flag("install-cni-conf", "FILE", "", "write a conflist for it to FILE, and exit", from_environment=False),
        Flag("v", "LEVEL", "0", "from 4 on every step is logged"),
        Flag("vmodule", "PATTERN=N", "", "accepted and without effect"),
        Flag("log_backtrace_at", "FILE:LINE", "", "accepted and without effect"),
        switch("version", "false", "print the version, and exit", from_environment=False),
        switch("help", "false", "print this, and exit", from_environment=False),
        switch("h", "false", "", from_environment=False),
    ),
)

GROUPS = (ETCD, KUBERNETES, UNDERLAY, LEASE, FIREWALL, OPERATION)

USAGE = """\
Usage: netagent [flags]

Lease a pod subnet for this node and connect it with those of all other nodes. Routes outlive the daemon: stopping or
killing it moves no packet; only --cleanup removes them. A flag takes one dash or two, `--flag value` or `--flag=value`,
a switch `--flag` or `--flag=false`. A flag that is not given is looked for in the environment: --ip-masq in
FLANNELD_IP_MASQ."""
