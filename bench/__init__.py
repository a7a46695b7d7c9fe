"""Speed and memory, each figure beside its floor from the same run."""
