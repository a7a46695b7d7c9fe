"""Every command that reads, on a healthy lab: in each form, for a program, a terminal and a pipe.

A command that is not in the table below fails the first test: none is forgotten.
"""

import json
import os
import pty
import re
import subprocess

import pytest
import yaml
from deadline import PATIENCE_S, eventually
from schemas import validated
from whole_lab import bring_up
from whole_lab import netctl as run_netctl

from controlloop.client import get_json
from lab.topology import ETCD_URL
from lab.workload import apply, endpoint_slice, service
from netctl.main import netctl
from netctl.reference.commands import all_commands

WEB = "10.96.0.10"
NOUNS = ("leases", "peers", "services", "endpoints", "rules", "routes", "fdb")
ARGUMENTS = {
    "explain": ("pod-1-1", "default/web"),
    "events": (),
    "help": ("NN104",),
    "top": ("--once", "--interval", "0.2"),
    "check etcd": ("--etcd-endpoints", ETCD_URL),
    "plan": ("-f", "{manifest}"),
    "commands": (),
    **dict.fromkeys(("status", "leases", "peers", "diff", "check host", "check net"), ()),
    **dict.fromkeys(
        (f"get {noun}" for noun in ("leases", "peers", "services", "endpoints", "rules", "routes", "fdb")), ()
    ),
}
ELSEWHERE = {
    "graph": "test_graph_*",
    "trace": "test_trace",
    "bundle": "test_bundle*",
    "lab break": "test_lab_break",
    "lab status": "test_lab",
    "lab graph": "test_graph_*",
}
"""Commands with an output of their own, and where it is judged."""
FINDINGS = {"check etcd": 1}
"""The lab's etcd has no TLS, and says so."""
HINTING = {"top"}
"""Commands that say beside their output what they cannot count here."""
MANIFEST = """
apiVersion: v1
kind: Service
metadata: {name: new, namespace: default}
spec: {clusterIP: 10.96.0.77, ports: [{name: main, port: 80, protocol: TCP}]}
"""
ANSI = re.compile(r"\x1b\[")

every_command = pytest.mark.parametrize("command", sorted(ARGUMENTS))
in_both_modes = pytest.mark.parametrize("lab", ["nftables", "iptables"], indirect=True, scope="module")
in_one_mode = pytest.mark.parametrize("lab", ["nftables"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def lab(request):
    made = bring_up(mode=request.param, nodes=2)
    try:
        apply(made, service("web", WEB), endpoint_slice("web", made, ["pod-1-1", "pod-2-1"]))
        eventually(lambda: get_json(made.nodes[0].run_dir / "nodenet/netproxy.sock", "/status")["endpoints"] == 2)
        eventually(lambda: "reachable" in netctl_there(made, "peers").stdout)
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    path = tmp_path_factory.mktemp("manifests") / "new.yaml"
    path.write_text(MANIFEST)
    return path


def words(command, manifest):
    return [*command.split(), *(word.format(manifest=manifest) for word in ARGUMENTS[command])]


def netctl_there(lab, *argv, **options):
    return subprocess.CompletedProcess(argv, *run_netctl(lab, *argv, **options))


def as_is_due(command, shown):
    """It, when it ended as on a healthy node. What is called or pinged may be slow to answer, and is a finding then."""
    assert shown.returncode == FINDINGS.get(command, 0), shown
    return shown


def gives_hints(shown):
    """Whether it gave one, and nothing else."""
    assert all(line.startswith("netctl: bytes are not counted: ") for line in shown.stderr.splitlines()), shown.stderr
    return bool(shown.stderr)


def test_no_command_that_reads_is_forgotten():
    reading = {
        each.name.removeprefix("netctl ")
        for each in all_commands(netctl)
        if any("--output" in option.flags for option in each.options)
    }
    assert reading - ELSEWHERE.keys() == ARGUMENTS.keys()


@in_both_modes
@every_command
def test_as_a_document_it_is_as_its_schema_says(lab, manifest, command):
    shown = eventually(lambda: as_is_due(command, netctl_there(lab, *words(command, manifest), "-o", "json")))
    assert gives_hints(shown) == (command in HINTING)
    document = validated(json.loads(shown.stdout))
    assert document["apiVersion"] == "nodenet.io/v1alpha1"


@in_one_mode
@every_command
def test_yaml_says_the_same(lab, manifest, command):
    validated(yaml.safe_load(netctl_there(lab, *words(command, manifest), "-o", "yaml").stdout))


@in_one_mode
@every_command
def test_names_are_words_alone(lab, manifest, command):
    shown = eventually(lambda: as_is_due(command, netctl_there(lab, *words(command, manifest), "-o", "name")))
    assert all(len(line.split()) == 1 for line in shown.stdout.splitlines()) or command in ("commands", "explain")


def assert_plain(text):
    assert text.isascii()
    assert not ANSI.search(text)
    assert [line for line in text.splitlines() if line != line.rstrip()] == []


@in_both_modes
@every_command
def test_into_a_pipe_goes_plain_ascii_that_fits(lab, manifest, command):
    shown = netctl_there(lab, *words(command, manifest)).stdout
    assert_plain(shown)
    assert [line for line in shown.splitlines() if len(line) > 80] == []


@in_one_mode
@every_command
def test_wide_is_as_plain(lab, manifest, command):
    assert_plain(netctl_there(lab, *words(command, manifest), "-o", "wide").stdout)


def on_a_terminal(lab, argv, columns, **environment):
    """What is written to a terminal of that width."""
    keeper, terminal = pty.openpty()
    os.set_inheritable(terminal, True)
    sized = ["sh", "-c", f'stty cols {columns} rows 24 <&0; exec netctl "$@"', "netctl", *argv]
    given = [f"{name}={value}" for name, value in {"TERM": "xterm-256color", **environment}.items()]
    with lab.host("node-1").popen(["env", *given, *sized], stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        try:
            while part := os.read(keeper, 65536):
                shown += part
        except OSError:  # EIO: nobody has the terminal open any more
            pass
        process.wait(timeout=PATIENCE_S)
    os.close(keeper)
    return subprocess.CompletedProcess(argv, process.returncode, shown.decode())


@in_one_mode
@pytest.mark.parametrize("command", ["status", "peers", "check net", "explain"])
def test_a_terminal_gets_colours_unless_one_says_no(lab, manifest, command):
    assert ANSI.search(on_a_terminal(lab, words(command, manifest), 80).stdout)
    assert not ANSI.search(on_a_terminal(lab, words(command, manifest), 80, NO_COLOR="1").stdout)
    assert not ANSI.search(on_a_terminal(lab, words(command, manifest), 80, TERM="dumb").stdout)


@in_one_mode
@every_command
def test_a_narrow_terminal_is_no_error(lab, manifest, command):
    shown = eventually(lambda: as_is_due(command, on_a_terminal(lab, words(command, manifest), 40))).stdout
    assert "Traceback" not in shown


@in_one_mode
@every_command
def test_a_closed_pipe_is_no_error(lab, manifest, command):
    """`netctl ... | true`: nobody reads."""
    script = 'netctl "$@" | true'
    shown = subprocess.CompletedProcess((), 0)
    argv = ["bash", "-c", script, "netctl", *words(command, manifest)]
    with lab.host("node-1").popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        shown.stdout, shown.stderr = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, gives_hints(shown)) == (0, command in HINTING)


@in_one_mode
def test_without_a_command_it_is_status(lab):
    assert (
        netctl_there(lab).stdout.splitlines()[0] == netctl_there(lab, "status").stdout.splitlines()[0] == "node-1: ok"
    )


@in_one_mode
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("netctl explain pod-1-1 default/w", ["default/web"]),
        ("netctl get services other/", []),
        ("netctl help NN10", [f"NN1{number:02}" for number in range(10)]),
        ("netctl get fd", ["fdb"]),
    ],
)
def test_a_shell_offers_what_exists(lab, typed, offered):
    asked = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_NETCTL_COMPLETE": "bash_complete"}
    with lab.host("node-1").popen(
        ["env", *(f"{name}={value}" for name, value in asked.items()), "netctl"], stdout=subprocess.PIPE, text=True
    ) as process:
        shown = process.communicate(timeout=PATIENCE_S)[0]
    assert shown.split() == [f"plain,{word}" for word in offered]
