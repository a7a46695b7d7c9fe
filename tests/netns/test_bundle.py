"""`netctl bundle` on a lab in both modes, and every command that takes --from: what it says of a node and what it says
of the node's bundle are the same words.
"""

import json
import re
import subprocess
import tarfile
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import click
import pytest
from deadline import eventually
from schemas import validated
from whole_lab import bring_up, netctl

from controlloop.client import get_json
from lab.processes import send
from lab.workload import apply, endpoint_slice, service
from netctl.bundle.questions import AGENT_PAGES, PROXY_PAGES
from netctl.main import netctl as program

WEB, IDLE, UDP = "10.96.0.10", "10.96.0.11", "10.96.0.12"
MANIFEST = "nodenet-bundle/manifest.json"
PLAN = [service("more", "10.96.0.13")]
COMMANDS = {
    "status": ["", "-o wide", "-o json"],
    "leases": ["", "-o wide"],
    "peers": ["-o wide"],
    "get leases": ["-o json"],
    "get peers": ["-o json"],
    "get services": ["-o json"],
    "get endpoints": ["default/web"],
    "get rules": ["-o json"],
    "get routes": ["-o json"],
    "get fdb": ["-o json"],
    "events": [""],
    "graph": ["-o mermaid"],
    "diff": [""],
    "plan": ["-f /run/plan.json"],
    "check host": ["-o json"],
    "explain": [
        *("pod-1-1 default/web:main -o json", "pod-1-2 default/web -o wide", "- default/dns", f"client {IDLE}:80"),
        *(f"pod-1-2 {WEB}:80", f"pod-1-1 {UDP}:53/udp -o json", "- 10.10.0.2:22", "pod-1-1 8.8.8.8:53/udp -o json"),
        *("pod-1-1 10.244.0.77:80", "client 10.10.0.1:30080", "- 127.0.0.1:80", "nobody 10.96.0.10:80"),
    ],
}
"""Each command that takes --from, with what to ask it."""
LEFT_OUT = {"netagent": {"/healthz", "/readyz"}, "netproxy": {"/healthz", "/readyz", "/livez", "/proxyMode"}}
"""Pages that say nothing that another one does not."""
GOES_ON = re.compile(r"\b(?:\d+[hm])?\d+s\b|(?<=\"packets\": )\d+|(?<=\"bytes\": )\d+| +(?= -|$)", re.MULTILINE)
in_one_mode = pytest.mark.parametrize("lab", ["nftables"], indirect=True, scope="module")
"""What does not depend on it."""
SECRET = "hunter2hunter2"  # noqa: S105 - a canary
PLANTED = (
    f"NODENET_ETCD_PASSWORD={SECRET}",
    f"level=info url=http://root:{SECRET}@10.10.255.1:2379 token={SECRET}",
    f"Authorization: Bearer {SECRET}",
    json.dumps({"password": SECRET, "argv": ["--etcd-password", SECRET]}),
    f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
)


@pytest.fixture(scope="module", params=["nftables", "iptables"])
def lab(request):
    made = bring_up(mode=request.param, nodes=2)
    objects = [service("web", WEB), service("idle", IDLE), service("dns", UDP, protocol="UDP", port=53)]
    slices = [endpoint_slice("web", made, ["pod-1-1", "pod-2-1"])]
    apply(made, *objects, *slices, endpoint_slice("dns", made, ["pod-2-1"], protocol="UDP"))
    for node in made.nodes:
        eventually(lambda node=node: get_json(node.run_dir / "nodenet" / "netproxy.sock", "/status")["services"] == 3)
    (made.host("node-1").run_dir / "plan.json").write_text(json.dumps(PLAN[0]))
    yield made
    made.down()


def taken(cluster):
    """The path of a new bundle, as the node knows it and as we do, and what was told."""
    path = cluster.host("node-1").run_dir / "bundle.tar.gz"
    path.unlink(missing_ok=True)
    code, output, errors = netctl(cluster, "bundle", "/run/bundle.tar.gz")
    assert (code, output) == (0, "/run/bundle.tar.gz\n"), errors
    return path, errors


def unpacked(path):
    with tarfile.open(path) as archive:
        return {each.name: archive.extractfile(each).read() for each in archive}


def commands_with_from(command=program, path=()):
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from commands_with_from(each, (*path, name))
    elif any("--from" in parameter.opts for parameter in command.params):
        yield " ".join(path)


def test_no_command_that_takes_one_is_forgotten_here():
    assert set(commands_with_from()) == set(COMMANDS)


def told(cluster, command, *options):
    """Without what goes on meanwhile: ages and counters."""
    code, output, errors = netctl(cluster, *command.split(), *options)
    assert "nobody asked" not in errors
    return code, GOES_ON.sub("-", output), errors


@pytest.fixture(scope="module")
def bundled(lab):
    """One bundle serves all commands: it is long in the making."""
    taken(lab)
    return lab


@pytest.mark.parametrize("command", [f"{name} {rest}".strip() for name, all_ in COMMANDS.items() for rest in all_])
def test_a_bundle_says_what_the_node_said(bundled, command):
    """Probes go on meanwhile, so it may take another look, and a new bundle."""
    seen = []

    def is_same():
        seen[:] = [told(bundled, command), told(bundled, command, "--from", "/run/bundle.tar.gz")]
        if seen[0] != seen[1]:
            taken(bundled)
        return seen[0] == seen[1]

    try:
        eventually(is_same)
    except AssertionError:
        assert seen[0] == seen[1]
        raise
    assert seen[0][0] in (0, 1, 2)


def test_each_page_of_a_daemon_is_asked_for(lab):
    folder = lab.host("node-1").run_dir / "nodenet"
    for daemon, asked in ("netagent", AGENT_PAGES), ("netproxy", PROXY_PAGES):
        argv = ["curl", "-s", "--unix-socket", str(folder / f"{daemon}.sock"), "http://localhost/"]
        text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        pages = {word for word in text.split() if word.startswith("/") and not word.endswith("/")}
        assert pages - set(asked) == LEFT_OUT[daemon]


def test_what_is_in_it(lab):
    path, errors = taken(lab)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size < 2**20
    assert "review it before sharing" in errors
    found = unpacked(path)
    manifest = validated(json.loads(found[MANIFEST]))
    assert (manifest["node"], manifest["daemons"]) == ("node-1", ["netagent", "netproxy"])
    assert {answer["member"] for answer in manifest["answers"].values()} == {*found, ""} - {MANIFEST}
    assert all(bool(answer["member"]) != bool(answer["error"]) for answer in manifest["answers"].values())
    for daemon in manifest["daemons"]:
        assert b" info " in found[f"nodenet-bundle/logs/{daemon}.txt"]
        assert daemon.encode() in found[f"nodenet-bundle/processes/{daemon}.txt"]
        assert manifest["answers"][f"page {daemon} /metrics"]["member"]


@in_one_mode
def test_a_second_one_does_not_take_its_place(lab):
    path, _ = taken(lab)
    before = path.read_bytes()
    code, output, errors = netctl(lab, "bundle", "/run/bundle.tar.gz")
    assert (code, output) == (2, "")
    assert "/run/bundle.tar.gz is there already" in errors
    assert errors.count("\n") == 1
    assert path.read_bytes() == before


@in_one_mode
def test_a_daemon_that_hangs_costs_only_its_own_answers(lab):
    process = lab.process("node-1", "netproxy")
    send([process], SIGSTOP)
    try:
        path, errors = taken(lab)
        live = netctl(lab, "status", "-o", "name")
    finally:
        send([process], SIGCONT)
    assert "netproxy did not answer" in errors
    answers = json.loads(unpacked(path)[MANIFEST])["answers"]
    assert answers["page netproxy /status"]["error"]
    assert answers["page netagent /peers"]["member"]
    assert answers["log netproxy"]["member"]
    assert netctl(lab, "status", "-o", "name", "--from", "/run/bundle.tar.gz") == live
    code, output, _ = netctl(lab, "explain", "pod-1-2", f"{WEB}:80", "--from", "/run/bundle.tar.gz")
    assert code == 0
    assert "live         no" in output
    code, _, errors = netctl(lab, "explain", "pod-1-2", "default/web", "--from", "/run/bundle.tar.gz")
    assert (code, errors.count("\n")) == (3, 1)


def test_no_secret_is_in_it(lab):
    """In a log, a configuration, and what rules are called."""
    node = lab.host("node-1")
    with lab.log_of("node-1", "netproxy").open("a") as log:
        log.write("\n".join(PLANTED) + "\n")
    (node.run_dir / "flannel/other.env").write_text("\n".join(PLANTED))
    node.run(["nft", f'table inet zz {{ chain c {{ counter comment "password={SECRET}"; }}; }}'])
    try:
        path, _ = taken(lab)
    finally:
        node.run(["nft", "delete", "table", "inet", "zz"])
    found = unpacked(path)
    assert [name for name, content in found.items() if SECRET.encode() in content] == []
    marked = {name for name, content in found.items() if b"<masked>" in content}
    assert {name for name in marked if "other" in name or "_zz" in name or "logs" in name or "env" in name} == {
        "nodenet-bundle/files/run/flannel/_.env.json",
        "nodenet-bundle/output/nft_-j_list_table_inet_zz.json",
        "nodenet-bundle/logs/netproxy.txt",
    }


@in_one_mode
def test_verify_asks_a_packet_and_not_a_bundle(lab):
    taken(lab)
    code, output, errors = netctl(lab, "explain", "-", f"{WEB}:80", "--verify", "--from", "/run/bundle.tar.gz")
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert "--verify" in errors


def test_it_can_be_read_elsewhere(lab, tmp_path):
    path, _ = taken(lab)
    here = tmp_path / "b.tar.gz"
    here.write_bytes(path.read_bytes())
    argv = [str(Path(click.__file__).parents[4] / "bin/netctl"), "explain", "pod-1-2", "default/web", "--from", here]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "default/web" in done.stdout
