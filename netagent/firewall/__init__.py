"""Masquerading for the pod network, forwarding for it, and who may send us VXLAN: nftables or iptables."""
