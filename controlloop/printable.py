"""Foreign text on its way to a log or a terminal."""

SHOWN_LENGTH = 120


def escaped(text: str) -> str:
    """Nothing in it moves a cursor, changes a colour or starts a line."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def printable(text: str) -> str:
    """Escaped, and bounded: who writes an object does not choose how much of our log it fills."""
    return escaped(text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}...")
