"""Services and EndpointSlices for the benchmark, as netproxy reads them from etcd."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.service.network import NODE_ADDRESS, PORT, Target
from controlloop.etcd import Etcd

AT_ONCE = 200
FIRST_NODE_PORT = 30_000
NODE_PORTS = 500
"""So many of the Services have one."""
ENDPOINT_NETWORKS = 244, 245
"""10.244.0.0/16 and 10.245.0.0/16 have 100,000 endpoints of their own."""


@dataclass(frozen=True, slots=True)
class Workload:
    prefix: str
    services: int
    endpoints: int
    """Of each Service."""

    def name(self, number: int) -> str:
        return f"service-{number}"

    def target(self, number: int) -> Target:
        return (f"10.96.{number // 250}.{number % 250 + 1}", 80)

    def node_port(self, number: int) -> Target:
        return (NODE_ADDRESS, FIRST_NODE_PORT + number)

    def endpoint(self, number: int, index: int) -> str:
        serial = (number * self.endpoints + index) % (2 * 250 * 250)
        network = ENDPOINT_NETWORKS[serial // (250 * 250)]
        return f"10.{network}.{serial // 250 % 250}.{serial % 250 + 1}"

    def addresses(self, number: int) -> list[str]:
        return [self.endpoint(number, index) for index in range(self.endpoints)]

    def service(self, number: int) -> tuple[str, bytes]:
        address, port = self.target(number)
        ports: dict[str, Any] = {"name": "http", "protocol": "TCP", "port": port}
        has_node_port = number < NODE_PORTS
        if has_node_port:
            ports["nodePort"] = FIRST_NODE_PORT + number
        body = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": "bench", "name": self.name(number)},
            "spec": {
                "type": "NodePort" if has_node_port else "ClusterIP",
                "clusterIP": address,
                "clusterIPs": [address],
                "ports": [ports],
            },
        }
        return f"{self.prefix}/services/bench/{self.name(number)}", json.dumps(body).encode()

    def slice(self, number: int, addresses: Sequence[str]) -> tuple[str, bytes]:
        labels = {"kubernetes.io/service-name": self.name(number)}
        body = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"namespace": "bench", "name": f"{self.name(number)}-1", "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "http", "protocol": "TCP", "port": PORT}],
            "endpoints": [{"addresses": [address], "nodeName": "elsewhere"} for address in addresses],
        }
        return f"{self.prefix}/endpointslices/bench/{self.name(number)}-1", json.dumps(body).encode()

    def objects(self, numbers: Sequence[int]) -> Iterator[tuple[str, bytes]]:
        for number in numbers:
            yield self.service(number)
            yield self.slice(number, self.addresses(number))


async def put_all(etcd: Etcd, pairs: Sequence[tuple[str, bytes]]) -> None:
    for start in range(0, len(pairs), AT_ONCE):
        await asyncio.gather(*(etcd.put(key, body) for key, body in pairs[start : start + AT_ONCE]))
