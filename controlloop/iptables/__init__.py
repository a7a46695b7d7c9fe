"""Chains of ours in iptables as a state: their listing, the transaction that changes them, the programs of the host."""
