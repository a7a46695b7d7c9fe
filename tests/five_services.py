"""Five services that need a bit of everything, for rule sets that read like documentation.

default/web:http         10.96.0.1:80/tcp, node port 30080    round robin over three endpoints, one on this node
default/api              10.96.0.2:443/tcp, node port 30443, load balancer 203.0.113.1 for 198.51.100.0/24 and
                         10.10.0.0/16, external policy Local  weighted 3 to 1, the first endpoint on this node
default/cart:http        10.96.0.3:80/tcp                     two endpoints, clients keep theirs for three hours
default/idle             10.96.0.4:80/tcp, 192.0.2.7, 30081   no endpoints
kube-system/dns:dns      10.96.0.10:53/udp                    random over two endpoints, one on this node
kube-system/dns:metrics  10.96.0.10:9153/tcp                  no endpoints
"""

from ipaddress import ip_address, ip_network

from proxy.frontends import Balance, Endpoint, Frontend, Protocol, Refusal, Scope, ServiceName, ServicePortName

WEB, API, CART, IDLE = (ServiceName("default", name) for name in ("web", "api", "cart", "idle"))
DNS = ServiceName("kube-system", "dns")


def endpoint(address, port=8080, *, is_local=False, weight=1):
    return Endpoint(ip_address(address), port, is_local, weight)


def frontend(service, port_name, address, port, endpoints, *, protocol=Protocol.TCP, balance=Balance.RANDOM, **others):
    name = ServicePortName(service, port_name)
    return Frontend(name, ip_address(address), protocol, port, balance, endpoints, **others)


def node_port(service, port_name, port, endpoints, **others):
    return frontend(service, port_name, "0.0.0.0", port, endpoints, scope=Scope.NODE_PORT, **others)


def five_services():
    """Frontends by service."""
    web = (endpoint("10.244.1.2", is_local=True), endpoint("10.244.2.2"), endpoint("10.244.2.3"))
    api = (endpoint("10.244.1.3", 8443, is_local=True, weight=3), endpoint("10.244.2.4", 8443))
    cart = (endpoint("10.244.2.5"), endpoint("10.244.2.6"))
    dns = (endpoint("10.244.1.9", 53, is_local=True), endpoint("10.244.2.9", 53))
    in_turn, weighted = {"balance": Balance.ROUND_ROBIN}, {"balance": Balance.WEIGHTED}
    local = {**weighted, "inside": api, "refusal": Refusal.DROP}
    balancer = {"scope": Scope.LOAD_BALANCER, "sources": (ip_network("198.51.100.0/24"), ip_network("10.10.0.0/16"))}
    return {
        WEB: [
            frontend(WEB, "http", "10.96.0.1", 80, web, **in_turn),
            node_port(WEB, "http", 30080, web, **in_turn),
        ],
        API: [
            frontend(API, "", "10.96.0.2", 443, api, **weighted),
            frontend(API, "", "203.0.113.1", 443, api[:1], **local, **balancer),
            node_port(API, "", 30443, api[:1], **local),
        ],
        CART: [frontend(CART, "http", "10.96.0.3", 80, cart, affinity_s=10800)],
        DNS: [
            frontend(DNS, "dns", "10.96.0.10", 53, dns, protocol=Protocol.UDP),
            frontend(DNS, "metrics", "10.96.0.10", 9153, ()),
        ],
        IDLE: [
            frontend(IDLE, "", "10.96.0.4", 80, ()),
            frontend(IDLE, "", "192.0.2.7", 80, (), scope=Scope.EXTERNAL_IP),
            node_port(IDLE, "", 30081, ()),
        ],
    }
