"""Faults that a lab can be given, each with what netctl says of it, and how it ends."""
