"""The service proxy in iptables, legacy or nft: a tree of chains over the frontends, one chain for each of them."""
