"""netctl as an operator types it: a lab that stays, a node to look at, Services to write and to take back."""

import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGKILL, SIGPIPE

import pytest
import yaml
from builders import json, make_endpoint_slice, make_service
from deadline import eventually
from ordinary_user import as_ordinary_user

from lab.cluster import STATE_DIR, LabError, attach, take_down
from lab.topology import ETCD_URL
from lab.wiring import existing_namespaces

NAME = f"typed-{os.getpid()}"
NETCTL = str(Path(sys.executable).with_name("netctl"))


def netctl(*arguments, stdin=""):
    return subprocess.run([NETCTL, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=240)


def lab(command, *arguments, stdin="", name=NAME):
    return netctl("lab", command, "--name", name, *arguments, stdin=stdin)


def on_node(node, *argv, stdin=""):
    return lab("exec", node, "--", *argv, stdin=stdin)


def refused(done, *words):
    """One line on stderr with all the words, exit code 2, and nothing else."""
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    assert done.stderr.startswith("netctl: ")
    assert all(word in done.stderr for word in words), done.stderr
    return True


@pytest.fixture(scope="module")
def up():
    done = lab("up", "--nodes", "2", "--pods", "1", "--mode", "nftables")
    yield done
    with suppress(LabError):
        attach(NAME).down()


@pytest.fixture
def cluster(up):
    assert up.returncode == 0, up.stderr
    return attach(NAME)


# The lab


def test_a_lab_comes_up_and_says_what_to_do_with_it(up):
    assert up.returncode == 0, up.stderr
    assert up.stdout.startswith(f"lab {NAME} is up: 2 nodes in nftables mode, 2 pods.\n")
    assert f"netctl lab exec --name {NAME} node-1 -- ip route" in up.stdout
    assert "starting netagent and netproxy on 2 nodes" in up.stderr


def test_lab_status_shows_every_node_and_pod(cluster):
    done = lab("status")
    assert done.returncode == 0, done
    assert done.stdout.count(": ok\n") == 2
    for number in (1, 2):
        assert f"node-{number}: ok\n  netagent  ready     lease 10.244." in done.stdout
        assert f"pod-{number}-1 on node-{number}: {cluster.pod_address(f'pod-{number}-1')}\n" in done.stdout


def test_a_node_routes_its_peers_pods_into_the_overlay(cluster):
    peer = str(cluster.pod_address("pod-1-1")).rpartition(".")[0]
    assert f"{peer}.0/24 via {peer}.0 dev flannel.1 proto 78 onlink" in on_node("node-2", "ip", "route").stdout


def test_exec_passes_on_input_output_and_exit_code(cluster):
    done = on_node("node-1", "sh", "-c", "read line; echo got $line; echo oops >&2; exit 7", stdin="hello\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "got hello\n", "oops\n")


def test_exec_passes_on_the_programs_own_options(cluster):
    assert on_node("pod-1-1", "ip", "-4", "-o", "addr", "show", "eth0").stdout.count("10.244.") >= 1


def test_exec_ends_by_the_signal_that_ends_the_program(cluster):
    assert on_node("node-1", "sh", "-c", "kill -KILL $$").returncode == -SIGKILL


def test_a_program_that_writes_to_nobody_ends_quietly(cluster):
    done = on_node("node-1", "bash", "-c", "yes | head -n1; echo ${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr) == (f"y\n{128 + SIGPIPE}\n", "")


def test_exec_on_an_unknown_host_names_those_there_are(cluster):
    refused(on_node("nosuch", "true"), "'nosuch'", "node-1, node-2")


def test_exec_of_an_unknown_program_names_it(cluster):
    refused(on_node("node-1", "nosuch"), "lab exec: nosuch on node-1: No such file or directory")


def test_a_second_lab_of_that_name_is_refused_and_the_first_goes_on(cluster):
    refused(lab("up"), f"a lab named {NAME!r} is up", f"netctl lab down --name {NAME}")
    assert on_node("node-1", "true").returncode == 0


@pytest.mark.parametrize("command", ["down", "status", "exec"])
def test_without_a_lab_each_command_says_so(command):
    arguments = ["node-1"] if command == "exec" else []
    refused(lab(command, *arguments, name="nosuch"), "no lab named 'nosuch' is up", "netctl lab up")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "-a", "a" * 41])
def test_a_name_that_cannot_be_part_of_a_path_is_refused(name):
    refused(netctl("lab", "up", f"--name={name}"), repr(name))


@pytest.mark.parametrize(("flag", "value"), [("--nodes", "0"), ("--nodes", "two"), ("--mode", "ipvs")])
def test_a_lab_that_cannot_be_is_refused_by_flag_and_value(flag, value):
    refused(lab("up", flag, value), flag, value)


@pytest.mark.parametrize(
    "words", [["up"], ["down"], ["status"], ["graph"], ["break", "link"], ["heal"], ["exec", "node-1"]], ids=" ".join
)
def test_an_ordinary_user_is_refused(cluster, words):
    """Also of a lab that is there; its processes go on."""
    as_user = as_ordinary_user([NETCTL, "lab", words[0], "--name", NAME, *words[1:]])
    refused(subprocess.run(as_user, capture_output=True, text=True, check=False), "needs root")
    assert cluster.is_running("node-1", "netagent")


def test_an_ordinary_user_is_told_whom_a_daemon_answers(cluster):
    done = on_node("node-1", *as_ordinary_user([NETCTL, "leases"]))
    assert (done.returncode, done.stdout) == (3, "")
    assert "Permission denied (it answers root and group nodenet)" in done.stderr


def test_down_takes_this_lab_and_no_other_that_begins_like_it():
    name, longer = f"pre-{os.getpid()}", f"pre-{os.getpid()}-etcd"
    try:
        for each in (name, longer):
            done = lab("up", "--nodes", "1", "--pods", "0", name=each)
            assert done.returncode == 0, done.stderr
        assert lab("down", name=name).stdout == f"lab {name} is gone\n"
        assert lab("status", name=longer).returncode == 0
        assert existing_namespaces(name) == []
        assert not (STATE_DIR / name).exists()
    finally:
        for each in (name, longer):
            with suppress(LabError):
                attach(each).down()


def test_down_a_second_time_finds_nothing():
    name = f"twice-{os.getpid()}"
    try:
        lab("up", "--nodes", "1", "--pods", "0", name=name)
    finally:
        assert lab("down", name=name).returncode == 0
    refused(lab("down", name=name), f"no lab named {name!r} is up")


MOMENTS = ["wiring", "starting etcd", "starting netagent", "attaching"]


@contextmanager
def killed_while(name, moment):
    """A lab of which the builder was killed at that step."""
    argv = [NETCTL, "lab", "up", "--name", name, "--nodes", "2", "--pods", "1"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as builder:
        while moment not in builder.stderr.readline():
            assert builder.poll() is None
        builder.kill()
    try:
        yield
    finally:
        with suppress(LabError):
            take_down(name)


def test_a_lab_whose_builder_was_killed_is_built_anew():
    name = f"half-{os.getpid()}"
    with killed_while(name, "starting netagent"):
        assert lab("up", "--nodes", "1", "--pods", "0", name=name).returncode == 0


@pytest.mark.parametrize("moment", MOMENTS)
def test_of_a_lab_whose_builder_was_killed_down_leaves_nothing(moment):
    name = f"part-{os.getpid()}"
    with killed_while(name, moment):
        done = lab("down", name=name)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"lab {name} is gone\n", "")
        assert existing_namespaces(name) == []
        assert not (STATE_DIR / name).exists()
        eventually(lambda: not processes_of(name))


def processes_of(name):
    """Daemons that still write a log of this lab."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(STATE_DIR / name / "node") in str((folder / "fd/2").readlink()):
                found.append(folder.name)
    return found


# netctl status on a node


def test_a_healthy_node_is_ok(cluster):
    done = on_node("node-1", "netctl", "status")
    assert done.returncode == 0, done
    assert done.stdout.startswith("node-1: ok\n  netagent  ready     lease 10.244.")
    assert "\n  netproxy  ready     nftables mode, " in done.stdout


@pytest.mark.parametrize(("program", "other"), [("netagent", "netproxy"), ("netproxy", "netagent")])
def test_a_daemon_that_was_killed_is_the_finding(cluster, program, other):
    cluster.stop("node-1", program, SIGKILL)
    done = on_node("node-1", "netctl", "status")
    assert done.returncode == 3
    assert done.stdout.startswith("node-1: 1 finding\n")
    assert f"\n  {other}  ready " in done.stdout
    assert f"\n      {program} does not answer (/run/nodenet/{program}.sock: " in done.stdout
    cluster.start_daemons([("node-1", program)])
    assert on_node("node-1", "netctl", "status").returncode == 0


def test_a_skipped_object_is_a_finding_until_it_is_gone(cluster):
    cluster.put("/nodenet/services/default/broken", "{")
    done = eventually(lambda: status_with(1))
    assert "node-1: 1 finding\n" in done.stdout
    assert "\n  ! NN205 object skipped: Service default/broken, for " in done.stdout
    cluster.host("etcd").run(["etcdctl", "--endpoints", ETCD_URL, "del", "/nodenet/services/default/broken"])
    eventually(lambda: status_with(0))


def status_with(code):
    done = on_node("node-1", "netctl", "status")
    return done if done.returncode == code else None


def test_where_no_daemon_runs_status_says_so(cluster):
    done = on_node("pod-1-1", "env", "RUNTIME_DIRECTORY=/nonexistent/nodenet", "netctl", "status")
    assert done.returncode == 3
    assert done.stdout.startswith("this node: 2 findings\n")
    assert " ".join(done.stdout.split()).count("No such file or directory") == 2
    assert done.stderr == ""


# netctl apply and delete


def stored(cluster):
    listing = cluster.host("etcd").run(["etcdctl", "--endpoints", ETCD_URL, "get", "--prefix", "/nodenet/"])
    return dict(zip(listing.splitlines()[::2], listing.splitlines()[1::2], strict=True))


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text(yaml.safe_dump_all([make_service(), make_endpoint_slice()]))
    return path


def test_apply_and_delete_tell_what_they_did_to_each_object(cluster, manifest):
    def told(command):
        done = on_node("node-1", "netctl", command, "-f", str(manifest))
        assert done.returncode == 0, done
        return done.stdout.splitlines()

    assert told("apply") == ["service/default/web created", "endpointslice/default/web-1 created"]
    assert stored(cluster).keys() == {"/nodenet/services/default/web", "/nodenet/endpointslices/default/web-1"}
    assert told("apply") == ["service/default/web unchanged", "endpointslice/default/web-1 unchanged"]
    manifest.write_text(yaml.safe_dump_all([make_service(ports=[("http", "TCP", 81)]), make_endpoint_slice()]))
    assert told("apply") == ["service/default/web configured", "endpointslice/default/web-1 unchanged"]
    assert told("delete") == ["service/default/web deleted", "endpointslice/default/web-1 deleted"]
    assert told("delete") == ["service/default/web not found", "endpointslice/default/web-1 not found"]
    assert stored(cluster) == {}


def test_a_folder_stands_for_the_manifests_in_it(cluster, tmp_path):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(make_service(name="a")))
    (tmp_path / "b.json").write_bytes(json(make_service(name="b")))
    (tmp_path / "notes.txt").write_text("no manifest")
    done = on_node("node-1", "netctl", "apply", "-f", str(tmp_path))
    assert done.stdout == "service/default/a created\nservice/default/b created\n"
    on_node("node-1", "netctl", "delete", "-f", str(tmp_path))
    assert stored(cluster) == {}


def test_standard_input_and_files_go_together(cluster, manifest):
    text = yaml.safe_dump(make_service(name="piped"))
    done = on_node("node-1", "netctl", "apply", "-f", "-", "-f", str(manifest), stdin=text)
    assert done.stdout.splitlines()[0] == "service/default/piped created"
    assert len(stored(cluster)) == 3
    on_node("node-1", "netctl", "delete", "-f", "-", "-f", str(manifest), stdin=text)
    assert stored(cluster) == {}


def test_one_bad_object_keeps_everything_from_being_written(cluster, manifest):
    bad = make_service(name="bad", ports=[("http", "TCP", 70_000)])
    done = on_node("node-1", "netctl", "apply", "-f", str(manifest), "-f", "-", stdin=yaml.safe_dump(bad))
    refused(done, "Service default/bad: spec.ports[0].port: ")
    assert stored(cluster) == {}


def test_an_object_that_somebody_wrote_wrongly_can_be_deleted(cluster):
    bad = make_service(name="bad", ports=[("http", "TCP", 70_000)])
    cluster.put("/nodenet/services/default/bad", json(bad).decode())
    done = on_node("node-1", "netctl", "delete", "-f", "-", stdin=yaml.safe_dump(bad))
    assert done.stdout == "service/default/bad deleted\n"
    assert stored(cluster) == {}


def test_an_etcd_that_does_not_answer_is_named_with_its_flag(cluster, manifest):
    done = on_node("node-1", "netctl", "apply", "-f", str(manifest), "--etcd-endpoints", "http://127.0.0.1:1")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1), done
    assert done.stderr.startswith("netctl: --etcd-endpoints http://127.0.0.1:1: ")


def test_an_endpoint_that_is_no_url_is_named_with_its_flag(cluster, manifest):
    done = on_node("node-1", "netctl", "apply", "-f", str(manifest), "--etcd-endpoints", "nowhere")
    refused(done, "--etcd-endpoints nowhere: want http://HOST:PORT")
