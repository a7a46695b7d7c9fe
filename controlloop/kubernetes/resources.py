"""What the API server is asked for: collections of objects, and their paths. Pure."""

from dataclasses import dataclass, replace
from urllib.parse import quote, urlencode


@dataclass(frozen=True, slots=True)
class Collection:
    """All objects of one kind, in all namespaces or in one, or those of them that the selectors choose."""

    api: str
    plural: str
    namespace: str = ""
    """Empty: all of them, or a kind that has none."""
    labels: str = ""
    fields: str = ""

    def where(self, *, labels: str = "", fields: str = "") -> "Collection":
        return replace(self, labels=labels, fields=fields)

    def within(self, namespace: str) -> "Collection":
        return replace(self, namespace=namespace)

    @property
    def path(self) -> str:
        """Where objects are listed, and where a new one is sent to."""
        namespace = f"/namespaces/{quote(self.namespace, safe='')}" if self.namespace else ""
        return f"{self.api}{namespace}/{self.plural}"

    def target(self, **query: str | int) -> str:
        """Path and query of a list or watch."""
        selectors = {"labelSelector": self.labels, "fieldSelector": self.fields}
        chosen = {name: value for name, value in {**selectors, **query}.items() if value != ""}
        return f"{self.path}?{urlencode(chosen)}" if chosen else self.path

    def object_path(self, name: str, subresource: str = "") -> str:
        """Path of one object of this namespace, or of a kind that has none."""
        path = f"{self.path}/{quote(name, safe='')}"
        return f"{path}/{subresource}" if subresource else path

    def __str__(self) -> str:
        return self.plural


NODES = Collection("/api/v1", "nodes")
PODS = Collection("/api/v1", "pods")
SERVICES = Collection("/api/v1", "services")
ENDPOINT_SLICES = Collection("/apis/discovery.k8s.io/v1", "endpointslices")
SERVICE_CIDRS = Collection("/apis/networking.k8s.io/v1", "servicecidrs")
EVENTS = Collection("/apis/events.k8s.io/v1", "events")
