"""One nftables table of ours as a state: its values, its listing, the transaction that changes it."""
