"""Every finding by its code: what it is called, what it means, what to do, and the command to look with. Pure.

NN1xx the overlay, NN2xx Services, NN3xx this host, NN4xx etcd. A code never changes its meaning: scripts, alerts and
notes of operators hold it. One that is no longer raised stays free.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    title: str
    """A few words, to stand before the object."""
    meaning: str
    action: str
    look: str
    """A command that shows more."""


OVERLAY = {
    "NN100": Entry(
        "netagent says what this netctl does not know",
        "netagent has found something under a code that this netctl lacks: they are of different versions.",
        "Read the evidence; use the netctl of the daemons' version, and restart daemons after an upgrade.",
        "netctl status -o wide",
    ),
    "NN101": Entry(
        "no answer from the agent",
        "netagent does not answer on its socket: it is not running, or this user may not ask it. Routes, neighbors and "
        "firewall rules stay as they are, so traffic goes on; changes of other nodes are not followed, and after the "
        "lease's time (24 hours) another node may get this node's subnet.",
        "Start it, and read why it ended. As an ordinary user: join the group that owns the socket.",
        "journalctl -u netagent -n 50",
    ),
    "NN102": Entry(
        "the overlay is not ready",
        "netagent runs, but the kernel does not hold what it should, for the reason that is told.",
        "Give it what it waits for. If it waits for nothing from outside, the log has the kernel's refusal.",
        "journalctl -u netagent -n 50",
    ),
    "NN103": Entry(
        "no lease",
        "This node has no pod subnet, or lost it. Without one no pod gets an address here and no peer knows the node.",
        "Check that the store answers and has a network configuration with subnets left.",
        "netctl leases",
    ),
    "NN104": Entry(
        "peer does not answer",
        "Probes through the overlay were answered before, and are not now. Pods here cannot reach pods on that node.",
        "Look at that node: is it up, does its netagent run? Then at what lies between: UDP of the overlay (port 8472 "
        "unless configured otherwise) must pass in both directions through every firewall.",
        "netctl check net",
    ),
    "NN105": Entry(
        "large packets do not arrive",
        "Small probes through the overlay are answered, full-sized ones are not. Connections open and then hang at the "
        "first large answer.",
        "Give every link of the underlay a larger MTU, or set a smaller MTU in the Backend of the network "
        "configuration, on all nodes.",
        "netctl peers -o wide",
    ),
    "NN106": Entry(
        "UDP with wrong checksums",
        "Packets of the overlay come in with a wrong UDP checksum and are thrown away: a NIC or driver on the sending "
        "side miscounts when it computes checksums of encapsulated packets.",
        "Run netagent with --tx-checksum-off on the nodes that send them.",
        "nstat -az UdpInCsumErrors",
    ),
    "NN107": Entry(
        "lease skipped",
        "A record in the registry cannot be followed: it is malformed, or claims addresses that are not its own. That "
        "node is not reached; all others are.",
        "Repair or delete the record. If nobody of yours wrote it, find out who may write to the registry.",
        "netctl leases -o wide",
    ),
    "NN108": Entry(
        "somebody undoes the overlay",
        "Another program keeps removing or changing what netagent programs. After ten repairs it repairs only once in "
        "5 seconds, and traffic suffers in between.",
        "Stop the program that is named, or tell it to leave foreign routes, devices and rules alone.",
        "netctl diff",
    ),
    "NN109": Entry(
        "notifications overflow",
        "The kernel reports changes faster than they can be read, so single ones are missed and everything is looked "
        "at from time to time instead. Repairs come later than usual.",
        "Find what changes links, routes, neighbors or rules without end.",
        "ip monitor",
    ),
    "NN110": Entry(
        "peer is not in the kernel",
        "A peer's lease is valid, but its route is not programmed, so its pods are not reached.",
        "If it does not pass within seconds, read what the kernel refused.",
        "journalctl -u netagent -n 50",
    ),
    "NN111": Entry(
        "the registry is silent",
        "netagent has heard nothing from the store for a while. Traffic is not disturbed, but new and changed nodes "
        "are not followed.",
        "Check the store and the way to it.",
        "netctl check etcd",
    ),
    "NN112": Entry(
        "the agent's firewall is not in place",
        "The rules that let pod traffic through, masquerade it and drop forged overlay packets are not in the kernel.",
        "Read which rule the kernel refused, or who removes them.",
        "journalctl -u netagent -n 50",
    ),
    "NN113": Entry(
        "packets are lost on the way",
        "Some of the pings to that node are answered and some are not: connections work and are slow.",
        "Look for errors and drops at the NICs and switches between, and for a link that is full.",
        "ip -s link",
    ),
}

SERVICES = {
    "NN200": Entry(
        "netproxy says what this netctl does not know",
        "netproxy has found something under a code that this netctl lacks: they are of different versions.",
        "Read the evidence; use the netctl of the daemons' version, and restart daemons after an upgrade.",
        "netctl status -o wide",
    ),
    "NN201": Entry(
        "no answer from the proxy",
        "netproxy does not answer on its socket: it is not running, or this user may not ask it. The rules stay as "
        "they are: Services go on as they were, changes are not followed.",
        "Start it, and read why it ended. As an ordinary user: join the group that owns the socket.",
        "journalctl -u netproxy -n 50",
    ),
    "NN202": Entry(
        "no sync yet",
        "netproxy runs, but has not yet had a complete list of Services, so it has written nothing.",
        "Wait a moment; then check that its source answers.",
        "journalctl -u netproxy -n 50",
    ),
    "NN203": Entry(
        "rules are not in place",
        "The kernel does not hold the rules that netproxy wants there.",
        "Read what the kernel refused.",
        "journalctl -u netproxy -n 50",
    ),
    "NN204": Entry(
        "the source of Services is away",
        "netproxy hears nothing from Kubernetes or etcd. What is programmed stays; changes are not followed.",
        "Check the server and the way to it.",
        "journalctl -u netproxy -n 50",
    ),
    "NN205": Entry(
        "object skipped",
        "A Service, EndpointSlice or manifest cannot be understood. Its last good version stays in force if there was "
        "one; all other objects are served.",
        "Correct the object as the evidence says.",
        "journalctl -u netproxy -n 50",
    ),
    "NN206": Entry(
        "Service quarantined",
        "The kernel refuses the rules of this Service, so it is left out; all others are served.",
        "Change what is unusual about the Service. If nothing is, report it with the kernel's words.",
        "journalctl -u netproxy -n 50",
    ),
    "NN207": Entry(
        "somebody undoes the proxy's rules",
        "Another program keeps removing or changing netproxy's rules. After ten repairs it repairs only once in 5 "
        "seconds, and Services fail in between.",
        "Stop that program, or let it restore its own tables only (`nft flush ruleset` and iptables-restore without "
        "--noflush remove everybody's).",
        "netctl diff",
    ),
    "NN208": Entry(
        "health check cannot be served",
        "The port on which a load balancer asks whether this node has endpoints cannot be opened, so the balancer "
        "takes the node for unhealthy.",
        "Free the port, or let the Service get another healthCheckNodePort.",
        "ss -lntp",
    ),
    "NN209": Entry(
        "client affinity is limited",
        "The Service is served, and its clients keep their endpoints, but only so many for each endpoint as the module "
        "xt_recent was loaded for: 100 unless it was told otherwise. iptables asks for sets of addresses over a raw "
        "socket, and the unit grants none.",
        "Install systemd's drop-in netproxy.service.d/iptables-affinity.conf (with legacy iptables "
        "legacy-iptables.conf, which grants the same), or use nftables mode.",
        "systemctl show netproxy --property AmbientCapabilities",
    ),
    "NN210": Entry(
        "Service does not answer",
        "A connection from this node to a Service with endpoints was refused or not answered: the endpoint does not "
        "listen, or the way to its node is broken.",
        "See where the connection goes, and whether that pod listens on the target port.",
        "netctl explain",
    ),
    "NN211": Entry(
        "node port shadows a socket",
        "A program on this node listens on a port that is also a node port. Connections from outside go to the Service "
        "and never reach the program.",
        "Give the program another port, or the Service another node port; keep the node port range out of "
        "net.ipv4.ip_local_port_range and of what you configure.",
        "ss -lntup",
    ),
    "NN212": Entry(
        "kube-proxy's rules are there",
        "Rules of kube-proxy translate connections before or after ours. They are never removed by netproxy, and they "
        "send connections to endpoints of the past once kube-proxy is gone.",
        "Stop kube-proxy on this node and remove its rules with kube-proxy --cleanup.",
        "iptables-save | grep KUBE-",
    ),
}

HOST = {
    "NN301": Entry(
        "the node does not forward",
        "The kernel drops packets between pods and other hosts.",
        "sysctl -w net.ipv4.ip_forward=1 (net.ipv6.conf.all.forwarding=1), and keep it: systemd/sysctl.d.",
        "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding",
    ),
    "NN302": Entry(
        "strict reverse path filter",
        "With rp_filter 1 the kernel drops packets that come in on another interface than it would answer on, as "
        "happens on nodes with several uplinks. The larger of `all` and the interface's own value counts.",
        "Set it to 2 (loose) or 0 for the named interface and for `all`.",
        "nstat -az TcpExtIPReversePathFilter",
    ),
    "NN303": Entry(
        "the bridge bypasses netfilter",
        "A pod that reaches a pod of its own node through a Service gets the answer over the bridge, where the "
        "Service's address is not put back in; the connection hangs.",
        "modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-iptables=1 (and -ip6tables for IPv6).",
        "sysctl net.bridge",
    ),
    "NN304": Entry(
        "route_localnet without a guard",
        "The kernel takes packets to 127.0.0.0/8 from the wire: neighbors reach services that listen on localhost only "
        "(CVE-2020-8558).",
        "Set route_localnet to 0. Who needs node ports on localhost lets netproxy do it, which guards it.",
        "sysctl -a | grep route_localnet",
    ),
    "NN305": Entry(
        "the kernel lacks a feature",
        "It was tried in a network namespace of its own, and the kernel or the program refused it.",
        "Load the module, or use a kernel that has it; for what a mode needs see docs/operations.md.",
        "uname -r; nft --version; iptables --version",
    ),
    "NN306": Entry(
        "a program is missing",
        "nodenet runs it to read or write the kernel.",
        "Install the package: nftables, iptables or iproute2.",
        "command -v nft iptables ip ss",
    ),
    "NN308": Entry(
        "systemd-networkd removes what it did not make",
        "When it starts, systemd-networkd removes routes and policy rules of others: an unattended upgrade then cuts "
        "the node from pods elsewhere until netagent has put them back.",
        "Install systemd/networkd.conf.d/nodenet.conf (ManageForeignRoutes=no, ManageForeignRoutingPolicyRules=no) and "
        "restart systemd-networkd.",
        "systemd-analyze cat-config systemd/networkd.conf",
    ),
    "NN310": Entry(
        "firewalld manages this host",
        "firewalld drops what its zones do not allow, and at each reload writes its rules anew.",
        "Put the overlay device, cni0 and the pod network into zone trusted, and open the overlay's UDP port.",
        "firewall-cmd --get-active-zones",
    ),
    "NN311": Entry(
        "ufw manages this host",
        "ufw drops forwarded packets unless told otherwise.",
        "Set DEFAULT_FORWARD_POLICY=ACCEPT in /etc/default/ufw or allow the pod network, and allow the overlay's port.",
        "ufw status verbose",
    ),
    "NN312": Entry(
        "another table translates first",
        "A rule that is not ours translates connections that a Service of ours is meant to get. The first translation "
        "of a connection wins.",
        "Narrow that rule by destination address or port, or give it a later priority than -100.",
        "nft list ruleset",
    ),
    "NN313": Entry(
        "forwarded packets are dropped",
        "Another table drops forwarded packets by policy, and has no rule that lets pod traffic through. In nftables "
        "an accept elsewhere does not help: every base chain must let a packet pass.",
        "Accept traffic of the pod network, or of the overlay device and cni0, in that chain.",
        "nft list chains",
    ),
    "NN314": Entry(
        "the overlay's port is closed",
        "A chain at input drops by policy and has no rule for the UDP port of the overlay: packets of peers end there.",
        "Accept that UDP port from the peers.",
        "nft list chains",
    ),
    "NN315": Entry(
        "iptables variants are mixed",
        "Both iptables-legacy and iptables-nft hold rules. Each packet passes both sets, and neither program shows the "
        "other's rules.",
        "Move all programs to one variant (update-alternatives --config iptables) and remove the other's rules.",
        "iptables-legacy-save; iptables-nft-save",
    ),
    "NN316": Entry(
        "the overlay's UDP port is occupied",
        "Another program has the VXLAN port, so the device cannot come up.",
        "End or move that program, or set another Port in the Backend of the network configuration, on all nodes.",
        "ss -lunp",
    ),
    "NN317": Entry(
        "the VNI is occupied",
        "Another VXLAN device on this host has the same VNI and port: two overlays would mix.",
        "Remove that device, or set another VNI in the Backend of the network configuration, on all nodes.",
        "ip -details link show type vxlan",
    ),
    "NN318": Entry(
        "conntrack is nearly full",
        "When the table of connections is full, new ones are dropped, and the log says `nf_conntrack: table full`.",
        "Raise net.netfilter.nf_conntrack_max (netproxy --conntrack-min, --conntrack-max-per-core); then find who "
        "opens so many.",
        "conntrack -S",
    ),
    "NN320": Entry(
        "datagrams with wrong checksums",
        "Many of the UDP datagrams that came in had a wrong checksum, which points at checksum offload of NICs "
        "or drivers below the overlay.",
        "Run netagent with --tx-checksum-off on the nodes that send them.",
        "nstat -az UdpInCsumErrors",
    ),
    "NN321": Entry(
        "MTU does not fit",
        "The overlay device lets packets pass that do not fit into its underlay once they are wrapped.",
        "Set the MTU of the Backend in the network configuration, or restart netagent so that it measures again.",
        "ip -details link show type vxlan",
    ),
    "NN322": Entry(
        "the table of neighbors is nearly full",
        "The kernel has one table of neighbors for all network namespaces of a host, those of pods too. While it is "
        "full, packets to neighbors that are not in it are dropped, and the log says `neighbor table overflow!`. "
        "Permanent entries, as those of peers, always find room.",
        "Raise net.ipv4.neigh.default.gc_thresh3 and gc_thresh2 (net.ipv6.neigh for IPv6) outside of any namespace, "
        "and keep them: systemd/sysctl.d.",
        "ip -s ntable show",
    ),
}

STORE = {
    "NN401": Entry(
        "etcd does not answer",
        "No endpoint answered in time. Nodes keep what they have; nothing new is followed.",
        "Check the server, the way to it, and the certificates.",
        "etcdctl endpoint health",
    ),
    "NN402": Entry(
        "etcd is older than its security fixes",
        "Versions before 3.5.33 and 3.6.14 (and all of 3.4) let some users read or do more than their role allows "
        "(CVE-2026-33413, CVE-2026-44283, GHSA-xg4h-6gfc-h4m8 and others).",
        "Upgrade the servers, one after the other.",
        "etcdctl endpoint status -w table",
    ),
    "NN403": Entry(
        "etcd without TLS",
        "Leases, and with a password logins too, cross the network unprotected: who is on the way can redirect the "
        "traffic of whole nodes.",
        "Give the servers certificates and use https:// endpoints with --etcd-cafile.",
        "etcdctl endpoint status -w table",
    ),
    "NN404": Entry(
        "etcd asks nobody who he is",
        "Without authentication everybody who reaches the port may write leases, and so redirect traffic.",
        "Make a user and a role for nodenet and enable authentication (docs/operations.md), or require client "
        "certificates.",
        "etcdctl auth status",
    ),
    "NN405": Entry(
        "more is readable than needed",
        "This login can read keys outside the prefix of the overlay; a stolen node credential then opens them too.",
        "Grant a role only the prefix: read on PREFIX/config, readwrite on PREFIX/subnets.",
        "etcdctl role list",
    ),
    "NN406": Entry(
        "leases contradict each other",
        "Two leases have overlapping subnets, or one node's address stands in two. Other nodes can follow only one.",
        "Find out which node uses which (subnet.env there), and delete the other record.",
        "netctl leases -o wide",
    ),
    "NN407": Entry(
        "record cannot be read",
        "A key below PREFIX/subnets is not a lease. It is skipped by all nodes.",
        "Repair or delete the record.",
        "etcdctl get PREFIX/subnets --prefix",
    ),
    "NN408": Entry(
        "no usable network configuration",
        "PREFIX/config is missing or cannot be understood. Agents wait for it.",
        'Write it: {"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}.',
        "etcdctl get PREFIX/config",
    ),
    "NN409": Entry(
        "etcd refuses us",
        "The server wants a user, a password or a certificate that we did not show, or the role lacks a permission.",
        "Check --etcd-username, the password and the role's grants.",
        "etcdctl user get USER",
    ),
    "NN410": Entry(
        "etcd has raised an alarm",
        "An etcd that is out of space refuses writes: leases run out and no Service is changed. A corrupt one must not "
        "be trusted.",
        "NOSPACE: compact, defragment, then `etcdctl alarm disarm`. CORRUPT: restore that member.",
        "etcdctl alarm list",
    ),
    "NN411": Entry(
        "private key is readable by others",
        "Every user of this host can read our key for etcd, and so act as this node.",
        "chmod 600 the file, and give it to the user that runs the daemons.",
        "ls -l",
    ),
}

CATALOGUE = {**OVERLAY, **SERVICES, **HOST, **STORE}
