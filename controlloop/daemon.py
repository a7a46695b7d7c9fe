"""How a daemon lives: started with a checked configuration, stopped by a signal, judged by its exit code.

0: stopped by SIGTERM or SIGINT. 2: the operator must act; one line says what. 1: a fault of ours; a traceback is in
the log and the supervisor starts us again. In every case the kernel keeps what was programmed.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

from controlloop.errors import OperatorError
from controlloop.logs import Log
from controlloop.notify import Notifier

log = Log("daemon")

EXIT_FAULT = 1
EXIT_OPERATOR = 2


def run_daemon(program: str, body: Callable[[], Awaitable[None]]) -> int:
    """Run `body` until it returns or a signal cancels it; gives back the exit code."""
    try:
        asyncio.run(_until_signalled(body))
    except BaseExceptionGroup as group:
        return _verdict(program, group)
    except OperatorError as error:
        return _refuse(program, error)
    except Exception:
        log.fault("fault", group)
        return EXIT_FAULT
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


def _verdict(program: str, group: BaseExceptionGroup[BaseException]) -> int:
    operator, others = group.split(OperatorError)
    if others is None and operator is not None:
        return _refuse(program, first_of(operator))
    log.fault("fault", group)
    return EXIT_FAULT


def _refuse(program: str, error: BaseException) -> int:
    print(f"{program}: {error}", file=sys.stderr)
    return EXIT_OPERATOR


def first_of(error: BaseException) -> BaseException:
    """The first single error inside nested groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
