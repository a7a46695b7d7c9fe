"""The table of commands and what is made of it: nothing is left out, nothing is cut, no reader refuses it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from schemas import validated

from controlloop.flags import run_command
from netctl.main import SUMMARY, netctl
from netctl.reference.commands import all_commands, exit_codes
from netctl.reference.man import man_page, page_name

ALL = list(all_commands(netctl))
by_name = pytest.mark.parametrize("command", ALL, ids=lambda each: each.name)
NETCTL = shutil.which("netctl", path=Path(sys.executable).parent)


@by_name
def test_a_summary_fits_its_line_in_the_list(command):
    assert 0 < len(command.summary) <= SUMMARY or command.words == ("netctl",)


@by_name
def test_every_option_is_explained(command):
    assert [option.flags for option in command.options if not option.help] == []


def test_the_list_fits_a_terminal(capsys):
    run_command(netctl, ["--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in text.replace("[ARGS]...", "")


def test_the_commands_as_a_document(capsys):
    assert run_command(netctl, ["commands", "-o", "json"]) == 0
    document = validated(json.loads(capsys.readouterr().out))
    names = [item["name"] for item in document["items"]]
    assert names == [each.name for each in ALL]
    assert {"netctl get peers", "netctl check host", "netctl lab exec"} <= set(names)


def test_exit_codes_are_read_out_of_the_help():
    said = exit_codes("Exit code 0: it arrives; 1: it is dropped or refused; 5: the rules may not be read.")
    assert said == {"0": "it arrives", "1": "it is dropped or refused", "5": "the rules may not be read"}


@by_name
def test_a_man_page_is_without_faults(command, tmp_path):
    page = tmp_path / f"{page_name(command.words)}.1"
    page.write_text(man_page(command, "0.1.0"))
    groff = ["groff", "-man", "-Tascii", "-P-cbou", "-ww", page]
    done = subprocess.run(groff, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert [option.flags for option in command.options if option.flags[0] not in done.stdout] == []


def test_man_pages_go_where_one_says(tmp_path, capsys):
    assert run_command(netctl, ["man", str(tmp_path / "man1")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/man1: {len(ALL)} man pages\n"
    assert len(list((tmp_path / "man1").glob("netctl*.1"))) == len(ALL)


def test_man_pages_cannot_go_into_a_file(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run_command(netctl, ["man", str(tmp_path / "file/man1")]) == 2
    assert capsys.readouterr().err == f"netctl: man: {tmp_path}/file/man1: Not a directory\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script(shell, capsys):
    assert run_command(netctl, ["completion", shell]) == 0
    assert f"_NETCTL_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_bash_completes_commands(tmp_path):
    script = tmp_path / "netctl.bash"
    script.write_text(subprocess.run([NETCTL, "completion", "bash"], capture_output=True, text=True, check=True).stdout)
    typed = "COMP_WORDS=(netctl get pe) COMP_CWORD=2"
    ask = f'source {script}; {typed}; _netctl_completion {NETCTL}; echo "${{COMPREPLY[@]}}"'
    assert subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True).stdout == "peers\n"


@pytest.mark.parametrize(
    ("shell", "asked", "answer"),
    [
        ("zsh", {"COMP_WORDS": "netctl stat", "COMP_CWORD": "1"}, "plain\nstatus\n"),
        ("fish", {"COMP_WORDS": "netctl stat", "COMP_CWORD": "stat"}, "plain,status\t"),
    ],
)
def test_what_other_shells_ask_is_answered(shell, asked, answer):
    environment = {"PATH": "/usr/bin", "_NETCTL_COMPLETE": f"{shell}_complete", **asked}
    done = subprocess.run([NETCTL], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith(answer)


def test_a_fault_of_our_own_is_one_line_too():
    fault = "import netctl.status.node_status as here; here.read_status = lambda node: 1 / 0"
    ask = f"{fault}; from netctl.main import main; main()"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert done.stderr == (
        "netctl: a fault of netctl itself: ZeroDivisionError: division by zero (NODENET_TRACEBACK=1 shows where)\n"
    )


@pytest.mark.parametrize("words", [["commands"], ["commands", "-o", "json"], ["help", "codes"], ["--help"]])
def test_an_answer_that_cannot_be_written_is_one_line_too(words):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([NETCTL, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (74, "netctl: standard output: No space left on device\n")


@pytest.mark.parametrize("command", [each for each in ALL if any("--output" in one.flags for one in each.options)])
def test_a_form_that_is_none_is_one_line_that_names_it(command, capsys):
    given = ["x"] * sum(one.required for one in command.arguments) + ["-f", "x"] * (command.words[-1] == "plan")
    assert run_command(netctl, [*command.words[1:], *given, "-o", "toml"]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "'toml'" in said.err
