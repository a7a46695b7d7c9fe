"""`netctl diff`: what the daemons want against what the kernel holds."""
