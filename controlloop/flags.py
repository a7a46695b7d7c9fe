"""How our daemons read their command line: bad usage is one line that names flag and value, and exit code 2."""

import sys
from collections.abc import Sequence

import click

from controlloop.errors import EXIT_OPERATOR, OperatorError


def run_command(command: click.Command, argv: Sequence[str] | None = None) -> int:
    """Parse `argv` (default: the process's own) and run the command; gives back the exit code."""
    try:
        result = command.main(args=argv, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return EXIT_OPERATOR
    except click.ClickException as error:
        return refuse(command, error.format_message())
    except OperatorError as error:
        return refuse(command, str(error))
    except click.Abort:
        return 130
    return result if isinstance(result, int) else 0


def refuse(command: click.Command, message: str) -> int:
    print(f"{command.name}: {' '.join(message.split())}", file=sys.stderr)
    return EXIT_OPERATOR
