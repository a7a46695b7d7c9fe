"""How a daemon lives: started with a checked configuration, stopped by a signal, judged by its exit code.

0: stopped by SIGTERM or SIGINT. 2: the operator must act; one line says what. 1: a fault of ours; a traceback is in
the log and the supervisor starts us again. In every case the kernel keeps what was programmed.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

from controlloop.errors import EXIT_FAULT, EXIT_OPERATOR, OperatorError
from controlloop.logs import Log
from controlloop.notify import Notifier

log = Log("daemon")


def run_daemon(program: str, body: Callable[[], Awaitable[None]]) -> int:
    """Run `body` until it returns or a signal cancels it; gives back the exit code."""
    try:
        asyncio.run(_until_signalled(body))
    except Exception as error:  # noqa: BLE001 - the last line of defence decides the exit code
        return _verdict(program, error)
    return 0


async def _until_signalled(body: Callable[[], Awaitable[None]]) -> None:
    task = asyncio.ensure_future(body())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, task, number)
    with suppress(asyncio.CancelledError):
        await task


def _stop(task: asyncio.Future[None], number: signal.Signals) -> None:
    log.info("stopping", signal=number.name)
    Notifier().stopping()
    task.cancel()


def _verdict(program: str, error: Exception) -> int:
    if all(isinstance(single, OperatorError) for single in singles(error)):
        print(f"{program}: {next(singles(error))}", file=sys.stderr)
        return EXIT_OPERATOR
    log.fault("fault", error)
    return EXIT_FAULT


def singles(error: BaseException) -> Iterator[BaseException]:
    """The errors inside nested groups, one by one."""
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for inner in error.exceptions:
        yield from singles(inner)
