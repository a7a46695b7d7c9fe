"""Logs as one line of key=value pairs on stderr, with the priority prefix that journald reads (sd-daemon(3))."""

import logging
import os
import sys

from controlloop.printable import escaped

BACKSLASH, QUOTE = "\\", '"'

PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def quote(value: object) -> str:
    text = str(value)
    if text and text.isprintable() and not any(char in ' "=' for char in text):
        return text
    return f'"{escaped(text.replace(BACKSLASH, BACKSLASH * 2).replace(QUOTE, BACKSLASH + QUOTE))}"'


class KeyValueFormatter(logging.Formatter):
    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self.journal = journal

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = getattr(record, "fields", {})
        pairs = " ".join(f"{key}={quote(value)}" for key, value in fields.items())
        line = f"{record.getMessage()} {pairs}".rstrip()
        if record.exc_info and record.levelno >= logging.ERROR:
            line += f" exception={quote(self.formatException(record.exc_info))}"
        if self.journal:
            return f"<{PRIORITY.get(record.levelno, 6)}>{line}"
        return f"{self.formatTime(record)} {record.levelname.lower():7} {line}"


class Log:
    """A logger that takes fields: `log.info("reconcile", changes=3, took_ms=14)`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: object) -> None:
        self._logger.debug(event, extra={"fields": fields})

    def info(self, event: str, **fields: object) -> None:
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: object) -> None:
        self._logger.warning(event, extra={"fields": fields})

    def error(self, event: str, **fields: object) -> None:
        self._logger.error(event, extra={"fields": fields})

    def fault(self, event: str, error: BaseException) -> None:
        """A bug: the whole traceback goes into the log, on one line."""
        self._logger.error(event, exc_info=error, extra={"fields": {}})


def configure(*, verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter(journal="JOURNAL_STREAM" in os.environ))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    # asyncio's own debug lines are about its selector, not about networks.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
