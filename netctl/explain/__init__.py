"""What becomes of a packet on this node, and why, read from the kernel's own rules."""
