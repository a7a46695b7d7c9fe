"""What an answer other than success means, sorted by whose move is next. Pure."""

from controlloop.errors import CompactedError, UnavailableError

GONE = 410
TOO_LARGE = "Too large resource version"
"""A server that is behind the revision we know says so with status 504 (API concepts, "Unavailable resource versions").
"""


class DeniedError(UnavailableError):
    """Who we are, or what we may do, is not enough: a person's move, yet a grant needs no restart, hence a retry."""


class UnauthenticatedError(DeniedError):
    """The credentials themselves are not accepted; newer ones may be."""


class NotFoundError(UnavailableError):
    """The object does not exist, so far."""


def refusal(verb: str, status: int, message: str) -> UnavailableError | CompactedError:
    """The error for a status of 400 and above. `verb` names what was asked for: `list nodes`."""
    text = f"{verb}: {status} {message}".rstrip()
    if status == GONE or (status == 504 and message.startswith(TOO_LARGE)):
        return CompactedError(text)
    if status == 401:
        return UnauthenticatedError(f"{verb}: the API server does not accept our credentials: {message}")
    if status == 403:
        return DeniedError(f"{verb}: not permitted: {message}")
    if status == 404:
        return NotFoundError(text)
    return UnavailableError(text)


def retry_after_s(header: str, limit_s: float) -> float:
    """Seconds that the server wants to be left alone (RFC 9110, 10.2.3); 0 without the header or with a date."""
    return min(float(header), limit_s) if header.isascii() and header.isdigit() else 0.0
