"""Counts of each Service's use, in either mode: a table of nftables beside the rules that translate (docs/adr/0024)."""
