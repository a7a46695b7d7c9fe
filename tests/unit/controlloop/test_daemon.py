"""Exit codes, and what the operator reads."""

import pytest

from controlloop.daemon import run_daemon
from controlloop.errors import OperatorError


def outcome(capsys, error):
    async def body():
        raise error

    code = run_daemon("netagent", body)
    return code, capsys.readouterr().err


@pytest.mark.parametrize("nested", [False, True])
def test_the_operator_gets_one_line_and_exit_code_2(capsys, nested):
    error = OperatorError("--iface wlan9: no such interface")
    wrapped = ExceptionGroup("tasks", [ExceptionGroup("inner", [error])]) if nested else error
    assert outcome(capsys, wrapped) == (2, "netagent: --iface wlan9: no such interface\n")


def test_a_fault_of_ours_is_exit_code_1(capsys):
    assert outcome(capsys, KeyError("x"))[0] == 1


def test_a_fault_beside_an_operator_error_stays_a_fault(capsys):
    both = ExceptionGroup("tasks", [OperatorError("x"), KeyError("y")])
    assert outcome(capsys, both)[0] == 1


def test_a_body_that_ends_is_success():
    async def body():
        return

    assert run_daemon("netagent", body) == 0
