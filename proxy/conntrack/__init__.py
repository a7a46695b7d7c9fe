"""Flows that the kernel remembers, and which of them must be forgotten when endpoints go."""
