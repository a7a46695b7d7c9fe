"""Leases of pod subnets over a registry. A library: no kernel, no daemon.

    model      NetworkConfig, SubnetRange, Lease, LeaseAttrs                                            pure
    codec      parse_config, parse_key, render_key, parse_lease, render_attrs, option                   pure
    allocate   choose_subnets, fits: which subnet a node may have, and which it gets                    pure
    snapshot   LeaseSnapshot: all leases, and what a batch of changes does to them                      pure
    registry   Registry: the seam to where leases are kept, its records and errors
    etcd       EtcdRegistry                          memory   MemoryRegistry
    kubernetes KubernetesRegistry, KubernetesLessor: leases of Nodes, with
               annotations (Node <-> record) and claims (one record for each key)                       both pure
    leasing    acquire, keep, follow over any registry
    lessor     Lessor: the own lease, wherever leases are kept; RegistryLessor

Names are imported from their module: a package that gathered them would make `codec` cost what gRPC costs, and no pure
module could use it.
"""
