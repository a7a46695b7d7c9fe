"""`netctl lab`: a cluster on this machine, in network namespaces only."""
