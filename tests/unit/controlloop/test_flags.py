"""A command line that cannot be read is one line and exit code 2."""

import subprocess
import sys

import click
import pytest

from controlloop.errors import OperatorError
from controlloop.flags import run_command


@click.command()
@click.option("--count", type=click.IntRange(1, 9), default=1)
def program(*, count):
    if count == 2:
        raise OperatorError("--count 2:\nis taken")
    if count == 3:
        raise click.Abort
    return 7 if count == 7 else None


@pytest.mark.parametrize(("argv", "code"), [([], 0), (["--count=7"], 7), (["--help"], 0), (["--count=3"], 130)])
def test_the_exit_code_is_the_commands_own(capsys, argv, code):
    assert run_command(program, argv) == code
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--count=x"], ["--count", "'x'"]),
        (["--count=10"], ["--count", "10"]),
        (["--count"], ["--count"]),
        (["--nonsense"], ["--nonsense"]),
        (["more"], ["more"]),
        (["--count=2"], ["--count 2: is taken"]),
    ],
)
def test_a_refusal_is_one_line_that_names_flag_and_value(capsys, argv, words):
    assert run_command(program, argv) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("program: ")
    assert all(word in err for word in words), err


@pytest.mark.parametrize("module", ["netagent.__main__", "proxy.__main__", "netctl.main"])
def test_a_refusal_or_help_does_not_wait_for_heavy_imports(module):
    heavy = "{'grpc', 'aetcd', 'pyroute2', 'asyncinotify', 'rich', 'scapy'}"
    script = f"import sys, {module}; print(*({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("\n", "")
