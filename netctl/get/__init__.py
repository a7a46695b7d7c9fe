"""What the daemons believe and the kernel holds, as lists: `netctl get NOUN`."""
