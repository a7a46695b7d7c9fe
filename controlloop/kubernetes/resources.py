"""What the API server is asked for: collections of objects, and their paths. Pure."""

from dataclasses import dataclass, replace
from urllib.parse import quote, urlencode


@dataclass(frozen=True, slots=True)
class Collection:
    """All objects of one kind in all namespaces, or those of them that the selectors choose."""

    api: str
    plural: str
    labels: str = ""
    fields: str = ""

    def where(self, *, labels: str = "", fields: str = "") -> "Collection":
        return replace(self, labels=labels, fields=fields)

    def target(self, **query: str | int) -> str:
        """Path and query of a list or watch."""
        selectors = {"labelSelector": self.labels, "fieldSelector": self.fields}
        chosen = {name: value for name, value in {**selectors, **query}.items() if value != ""}
        path = f"{self.api}/{self.plural}"
        return f"{path}?{urlencode(chosen)}" if chosen else path

    def object_path(self, name: str, subresource: str = "") -> str:
        """Path of one object of a kind that has no namespaces."""
        path = f"{self.api}/{self.plural}/{quote(name, safe='')}"
        return f"{path}/{subresource}" if subresource else path

    def __str__(self) -> str:
        return self.plural


NODES = Collection("/api/v1", "nodes")
SERVICES = Collection("/api/v1", "services")
ENDPOINT_SLICES = Collection("/apis/discovery.k8s.io/v1", "endpointslices")
