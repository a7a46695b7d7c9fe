"""A small asyncio client for the Kubernetes API: what leases on Nodes and the proxy's Services need, and no more.

    resources    Collection, NODES, SERVICES, ENDPOINT_SLICES: what is asked for                       pure
    decode       Listing, Change: what comes back, only the fields that the caller names               pure
    answers      what a refusal means: DeniedError, NotFoundError, CompactedError, UnavailableError    pure
    credentials  a token, a token file, a client certificate, a plugin
    access       where the server is, over which TLS, with which credentials
    kubeconfig   load_access: an Access from --kubeconfig-file, --kube-api-url or the pod we run in
    connection   HTTP/1.1 on one connection
    client       ApiClient: get, list, watch, patch, create

Why not a library: docs/adr/0010-kubernetes-client.md.
"""
