"""What every command's exit status means. Compatible with diff(1) and kubectl diff."""

OK = 0
FINDING = 1
"""Something is wrong: a fault, drift, a packet that would not arrive."""
USAGE = 2
UNREACHABLE = 3
"""A daemon or the store does not answer, so the answer is incomplete."""
TIMED_OUT = 4
REFUSED = 5
"""Not allowed to, or too dangerous."""
INTERRUPTED = 130
