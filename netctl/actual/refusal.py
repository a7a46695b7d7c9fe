"""Whether somebody may not look, which more rights would cure, or could not."""

from controlloop.command import CommandError

WORDS = ("Operation not permitted", "Permission denied", "must be root")
"""Of nft, ip, iptables and of a socket."""


def is_refusal(error: Exception) -> bool:
    told = error.stderr if isinstance(error, CommandError) else str(error)
    return any(words in told for words in WORDS)
