"""netctl looks into the daemons and the kernel of a node, and drives the lab."""
