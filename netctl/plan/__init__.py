"""`netctl plan`: what manifests would change on this node, with nothing applied."""
