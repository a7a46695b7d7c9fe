"""What `netctl status` makes of what the daemons say: the verdict first, and an exit code for scripts."""

import json
import re
import socket
import time
from contextlib import ExitStack, contextmanager
from threading import Thread

import pytest

from netctl.exit_codes import FINDING, OK, UNREACHABLE
from netctl.findings.finding import age
from netctl.node import LiveNode
from netctl.status.node_status import read_status

NETAGENT = {
    "node": "node-a",
    "ready": True,
    "waiting_for": None,
    "lease": "10.244.7.0-24",
    "devices": ["flannel.1"],
    "peers": 2,
    "skipped": [],
}
NETPROXY = {
    "node": "node-a",
    "ready": True,
    "mode": "nftables",
    "services": 3,
    "endpoints": 5,
    "rules": {"nftables-ip": {"last_sync": 0.0}, "nftables-ip6": {"last_sync": 0.0}},
    "skipped": [],
}


@contextmanager
def answering(path, document):
    """A daemon that gives one answer."""
    body = json.dumps(document).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 \r\nConnection: close\r\n\r\n" + body)

        thread = Thread(target=answer, daemon=True)
        thread.start()
        yield
        thread.join(timeout=60)


def status_of(run_dir, **documents):
    with ExitStack() as daemons:
        for name, document in documents.items():
            daemons.enter_context(answering(run_dir / f"{name}.sock", document))
        return read_status(LiveNode(run_dir))


def skipping(document, name, reason):
    return {**document, "skipped": [{"name": name, "reason": reason}]}


def test_a_healthy_node_is_three_lines_and_ok(tmp_path):
    found = status_of(tmp_path, netagent=NETAGENT, netproxy=NETPROXY)
    assert found.exit_code == OK
    assert found.render().splitlines() == [
        "node-a: ok",
        "  netagent  ready     lease 10.244.7.0-24, flannel.1, 2 peers",
        "  netproxy  ready     nftables mode, 3 services, 5 endpoints",
    ]


def test_the_last_sync_is_told_by_its_age(tmp_path):
    rules = {"a": {"last_sync": time.time() - 200}, "b": {"last_sync": time.time() - 7200}}
    found = status_of(tmp_path, netagent=NETAGENT, netproxy={**NETPROXY, "rules": rules})
    assert re.search(r"synced 3m\d\ds", found.render())


def test_who_wants_more_is_told_what_was_repaired_and_forgotten(tmp_path):
    rules = {"nftables-ip": {"last_sync": 0.0, "repaired": 3}, "nftables-ip6": {"last_sync": 0.0, "repaired": 0}}
    proxy = {**NETPROXY, "rules": rules, "flows_forgotten": 7}
    lines = status_of(tmp_path, netagent=NETAGENT, netproxy=proxy).shown("wide").splitlines()
    assert "  netproxy  repaired 3 nftables-ip, 0 nftables-ip6" in lines
    assert "  netproxy  forgot 7 flows that led nowhere" in lines


def test_a_daemon_that_waits_is_a_finding_with_what_it_waits_for(tmp_path):
    waiting = {**NETAGENT, "ready": False, "lease": None, "waiting_for": "network configuration"}
    found = status_of(tmp_path, netagent=waiting, netproxy=NETPROXY)
    assert found.exit_code == FINDING
    assert found.render().startswith("node-a: 1 finding\n  netagent  NOT READY lease none, ")
    assert "waits for network configuration\n" in found.render()


def test_what_a_daemon_waits_for_does_not_leave_the_screen(tmp_path):
    waiting = {**NETAGENT, "ready": False, "waiting_for": "2 objects that somebody keeps undoing, and the registry"}
    lines = status_of(tmp_path, netagent=waiting, netproxy=NETPROXY).render().splitlines()
    assert max(map(len, lines)) <= 80
    assert "waits for 2 objects that somebody keeps undoing, and the registry" in " ".join("\n".join(lines).split())


def test_each_skipped_object_is_a_finding(tmp_path):
    found = status_of(
        tmp_path,
        netagent=skipping(NETAGENT, "garbage", "not a key"),
        netproxy=skipping(NETPROXY, "Service default/web", "spec: no ports"),
    )
    assert found.exit_code == FINDING
    assert found.render().splitlines()[0] == "node-a: 2 findings"
    assert found.render().splitlines()[3:] == [
        "  ! NN107 lease skipped: garbage",
        "      not a key",
        "      next: netctl leases -o wide",
        "  ! NN205 object skipped: Service default/web",
        "      spec: no ports",
        "      next: journalctl -u netproxy -n 50",
        "`netctl help NN107` says what it means and what to do.",
    ]


@pytest.mark.parametrize("silent", ["netagent", "netproxy"])
def test_a_daemon_that_does_not_answer_outweighs_a_finding(tmp_path, silent):
    documents = {"netagent": skipping(NETAGENT, "x", "y"), "netproxy": skipping(NETPROXY, "x", "y")}
    del documents[silent]
    found = status_of(tmp_path, **documents)
    assert found.exit_code == UNREACHABLE
    assert found.render().startswith("node-a: 2 findings\n")
    unheard = next(each for each in found.findings if each.object == silent)
    assert unheard.code == {"netagent": "NN101", "netproxy": "NN201"}[silent]
    assert f"{silent} does not answer ({tmp_path / silent}.sock: No such file or directory); " in unheard.evidence


def test_each_overlay_of_the_node_has_an_agent_of_its_own(tmp_path):
    for name in ("netagent", "netagent2", "netproxy"):
        (tmp_path / f"{name}.lock").touch()
    waiting = {**NETAGENT, "ready": False, "devices": ["flannel.2"]}
    found = status_of(tmp_path, netagent=NETAGENT, netagent2=waiting, netproxy=NETPROXY)
    assert [line.split()[0] for line in found.render().splitlines()[1:4]] == ["netagent", "netagent2", "netproxy"]
    [finding] = found.findings
    assert (finding.code, finding.object, finding.next) == ("NN102", "netagent2", "journalctl -u netagent@2 -n 50")
    assert read_status(LiveNode(tmp_path)).findings[1].evidence.startswith("netagent2 does not answer")


def test_a_node_without_daemons_has_no_name(tmp_path):
    found = read_status(LiveNode(tmp_path / "nowhere"))
    assert found.exit_code == UNREACHABLE
    assert found.render().startswith("this node: 2 findings\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.9, "59s"), (60, "1m00s"), (192, "3m12s"), (7500, "2h05m"), (356_400, "4d03h")],
)
def test_an_age_has_two_units_at_most(seconds, text):
    assert age(seconds) == text
