"""Service proxying in one nftables table: rules are constant, services are data (docs/adr/0005)."""
