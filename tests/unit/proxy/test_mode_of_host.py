"""A mode that the host has no program for is refused, and none is taken in its place."""

import pytest

from controlloop import command
from controlloop.errors import OperatorError
from proxy.config import ProxyMode
from proxy.daemon import check_mode


@pytest.mark.parametrize(("mode", "program"), [(ProxyMode.NFTABLES, "nft"), (ProxyMode.IPTABLES, "iptables")])
def test_the_flag_and_the_missing_program_are_named(mode, program, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "SEARCH_PATH", str(tmp_path))
    with pytest.raises(OperatorError, match=f"--proxy-mode {mode.value}: {program} is not installed"):
        check_mode(mode)
    (tmp_path / program).write_text("")
    (tmp_path / program).chmod(0o755)
    check_mode(mode)
