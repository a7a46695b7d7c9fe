"""What becomes of live packets on this node, as the kernel tells it."""
