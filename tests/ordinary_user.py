"""Somebody who is not root and in no group of ours."""

UID = 1234
READS = "-all,+dac_read_search"
"""A clone may lie in a folder that is closed to others: what is tested is what the user may do, not read."""


def as_ordinary_user(argv):
    limits = [f"--{which}={READS}" for which in ("inh-caps", "ambient-caps", "bounding-set")]
    return ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", *limits, *argv]
