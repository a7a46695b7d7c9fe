"""The kinds of overlay, one file each: what a node tells its peers, and which kernel objects a lease becomes."""
