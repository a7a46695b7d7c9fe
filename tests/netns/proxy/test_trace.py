"""`netctl trace` beside what packets do and beside what `netctl explain` says of them, in every variant."""

import re
import subprocess
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM

import pytest
from calls import Call
from deadline import becomes, eventually
from manifests import port, service, slices
from namespace import inside
from network import ADDRESSES, HOST_OF
from ordinary_user import as_ordinary_user
from rig import only_nftables
from scapy.layers.inet import IP
from scapy.utils import PcapNgReader
from tables import ANSWER_WITHIN_S
from tracing import NETCTL, Tracing, log_settings, tables_in, tracing_instances

from controlloop.family import Family
from netctl.explain.command import explained
from netctl.explain.flow_words import Target
from netctl.node import LiveNode
from proxy.frontends import Protocol

NOWHERE = LiveNode(Path("/nonexistent"))
INTERRUPTED = 128 + SIGINT
CALLERS = ("pod-1-1", "pod-1-3", "node-1", "client")
NOBODY = "192.0.2.99"
both_families = pytest.mark.parametrize("family", Family)
DNAT = re.compile("dnat to .*")


def called(rig, callers, *, family=Family.V4, protocol="tcp", count=1):
    """Calls that were traced by one run: each with what trace says of its first packet."""
    address = ADDRESSES["cluster-ip"][family]
    calls = [Call(caller, address, 80, Protocol(protocol)) for caller in callers for _ in range(count)]
    with Tracing(rig.namespace, "any", str(address), "--protocol", protocol, count=1000) as tracing:
        rig.board.place(calls, wait=lambda _: ANSWER_WITHIN_S)
        rig.board.hang_up(calls)
        eventually(tracing.has_read_all)
        tracing.process.send_signal(SIGINT)
        code, items = tracing.packets()
    assert code == INTERRUPTED
    return [(call, first_of(items, call)) for call in calls]


def first_of(items, call):
    found = [item for item in items if item["source_port"] == call.own_port]
    assert found, f"nothing of port {call.own_port} was traced, but of {[item['source_port'] for item in items]}"
    return found[0]


def explanation(rig, call):
    said = "-" if call.caller == "node-1" else str(ADDRESSES[call.caller][Family.of(call.address)])
    with inside(rig.namespace):
        return explained(said, Target(call.address, "", str(call.port), call.protocol.value), NOWHERE)


def host_at(address):
    names = [name for name, both in ADDRESSES.items() if address in map(str, both.values())]
    return HOST_OF.get(names[0], names[0])


# -- as it was, and as it was predicted -------------------------------------------------------------------------------


@pytest.mark.kube_proxy("gap 5.5-1")
@both_families
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_it_says_where_packets_landed(rig, family, protocol):
    ports = [port(80, protocol.upper())]
    rig.given(service(ports=ports), slices("pod-1-1", "pod-1-2", "pod-2-1", ports=[port(8080, protocol.upper())]))
    for call, item in called(rig, CALLERS, family=family, protocol=protocol, count=6):
        assert (item["verdict"], item["arrives"], item["state"]) == ("dnat", True, "new"), item
        assert host_at(item["endpoint"]["address"]) == call.outcome, call
        assert item["masquerade"] is call.masqueraded, call
        predicted = explanation(rig, call).document()
        assert item["endpoint"]["address"] in {each["address"] for each in predicted["backends"]}
        assert item["service"] == predicted["service"]


@pytest.mark.kube_proxy("extra-8")
@both_families
def test_the_steps_are_those_of_the_explanation(rig, family):
    """With one endpoint there is one way."""
    rig.given(service(), slices("pod-1-1"))
    for call, item in called(rig, CALLERS, family=family):
        predicted = explanation(rig, call).document()
        assert told(item) == told(predicted), call
        for name in ("source", "from", "destination", "port", "protocol", "verdict", "masquerade", "masquerade_why"):
            assert item[name] == predicted[name], (name, call)


def told(document):
    return [{**step, "does": DNAT.sub("dnat", step["does"])} for step in document["steps"]]


@both_families
def test_without_endpoints(rig, family):
    rig.given(service())
    ((call, item),) = called(rig, ["pod-1-3"], family=family)
    assert call.outcome == "refused"
    assert (item["verdict"], item["arrives"], item["reason"]["code"]) == ("reject", False, "no-endpoints")
    assert item["reason"]["text"] == explanation(rig, call).document()["reason"]["text"]
    assert item["rule"]


@both_families
def test_what_follows_in_a_connection(rig, family):
    """It takes the same way, and no rule of type nat sees it."""
    rig.given(service(), slices("pod-2-1"))
    address = ADDRESSES["cluster-ip"][family]
    (call,) = rig.call("pod-1-3", "cluster-ip", 80, family=family)
    with Tracing(rig.namespace, str(ADDRESSES["pod-1-3"][family]), str(address)) as tracing:
        assert rig.board.echo(call, b"more", within_s=ANSWER_WITHIN_S) == 4
        code, (item,) = tracing.packets()
    assert (code, item["state"], item["verdict"]) == (0, "established", "dnat")
    assert host_at(item["endpoint"]["address"]) == "pod-2-1"


# -- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [SIGINT, SIGTERM, SIGHUP, SIGKILL])
def test_nothing_is_left_whatever_ends_it(rig, number):
    """Of rules, of settings and of the kernel's event tracing."""
    rig.given(service(), slices("pod-1-1"))
    before = log_settings(rig.namespace)
    # What hosts tell each other by themselves is not for this address.
    with Tracing(rig.namespace, NOBODY) as tracing:
        assert tables_in(rig.namespace)
        code, _ = tracing.end(number)
    assert code == (-SIGKILL if number == SIGKILL else 128 + number)
    becomes(lambda: tables_in(rig.namespace), [])
    becomes(lambda: log_settings(rig.namespace), before)
    eventually(tracing_instances, that=lambda found: f"netctl-trace-{tracing.process.pid}" not in found)


def test_nothing_is_left_at_its_own_end(rig):
    before = log_settings(rig.namespace)
    with Tracing(rig.namespace, NOBODY, timeout="100ms") as tracing:
        code, output = tracing.end()
    assert code == 4
    assert '"packets": 0' in output
    assert not tables_in(rig.namespace)
    assert log_settings(rig.namespace) == before
    assert f"netctl-trace-{tracing.process.pid}" not in tracing_instances()


@only_nftables
def test_what_an_earlier_run_left(rig):
    """Whoever killed it killed the child that cleans up behind it, too."""
    left = f"netctl-trace-{2**22 + 1}"  # no process has such an id: PID_MAX_LIMIT
    with inside(rig.namespace):
        subprocess.run(["nft", "add", "table", "inet", left], check=True)
    with Tracing(rig.namespace, NOBODY, timeout="100ms") as tracing:
        tracing.end()
    assert not tables_in(rig.namespace)


@only_nftables
def test_a_reader_that_goes_away(rig):
    rig.given(service(), slices("pod-1-1"))
    with Tracing(rig.namespace, "any", f"{ADDRESSES['cluster-ip'][Family.V4]}:80", form="table") as tracing:
        tracing.process.stdout.close()
        rig.call("pod-1-3", "cluster-ip", 80)
        tracing.process.wait(ANSWER_WITHIN_S * 5)
        assert "Traceback" not in tracing.process.stderr.read()
    assert not tables_in(rig.namespace)


def test_a_capture_file(rig, tmp_path):
    """Read by another program, with the comments in it."""
    rig.given(service(), slices("pod-2-1"))
    file = tmp_path / "trace.pcapng"
    address = ADDRESSES["cluster-ip"][Family.V4]
    with Tracing(rig.namespace, "any", f"{address}:80", "-w", str(file)) as tracing:
        (call,) = rig.call("pod-1-3", "cluster-ip", 80)
        assert tracing.packets()[0] == 0
    with PcapNgReader(str(file)) as reader:
        (packet,) = list(reader)
    assert (packet[IP].dst, packet[IP].dport, packet[IP].sport) == (str(address), 80, call.own_port)
    comments = packet.comments if hasattr(packet, "comments") else [packet.comment]
    assert f"dnat to {ADDRESSES['pod-2-1'][Family.V4]}:8080" in b"".join(map(_bytes, comments)).decode()


def _bytes(text):
    return text if isinstance(text, bytes) else text.encode()


@only_nftables
@pytest.mark.parametrize("form", ["table", "wide", "name", "yaml"])
def test_the_other_forms(rig, form):
    rig.given(service(), slices("pod-1-1"))
    with Tracing(rig.namespace, "any", f"{ADDRESSES['cluster-ip'][Family.V4]}:80/tcp", form=form) as tracing:
        rig.call("pod-1-3", "cluster-ip", 80)
        code, output = tracing.end()
    assert code == 0
    assert {"table": "1 packet traced: 1 dnat", "wide": "way", "name": "", "yaml": "kind: Trace"}[form] in output
    if form == "table":
        assert max(map(len, output.splitlines())) <= 80


@only_nftables
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["10.96.0.10:0"], "'0' is no port"),
        (["10.96.0.10:80/icmp"], "'icmp' is no protocol"),
        (["somebody", "10.96.0.10:80"], "'somebody' is no address"),
        (["10.96.0.300"], "is no destination"),
        (["fd00::1", "10.96.0.10:80"], "two families"),
        (["a", "b", "c"], "is too much"),
        (["--timeout", "never"], "'never' is no time"),
        (["--protocol", "icmp", "10.96.0.10:80"], "has no ports"),
        (["--protocol", "udp", "10.96.0.10:80/tcp"], "says tcp"),
        (["-w", "/nonexistent/file"], "--write=/nonexistent/file"),
    ],
)
def test_bad_words(rig, arguments, words):
    done = run(rig, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@only_nftables
def test_a_service_that_nobody_can_look_up(rig):
    done = run(rig, "default/web")
    assert (done.returncode, done.stdout) == (3, "")
    assert "netproxy does not answer" in done.stderr


@only_nftables
@pytest.mark.parametrize("command", [["trace"], ["explain", "10.96.0.10:80", "--verify"], ["check", "net"]])
def test_where_no_daemon_runs(rig, command):
    """Whoever types it on a machine that is no node gets a line, before a rule is written or a packet sent."""
    rig.given(service(), slices("pod-1-1"))
    before = next_table(rig)
    done = netctl(rig, *command)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.startswith(f"netctl: {' '.join(each for each in command if each != '10.96.0.10:80')}: no daemon")
    assert "--without-daemons" in done.stderr
    assert done.stderr.count("\n") == 1
    assert next_table(rig) == before + 1
    assert "10.96.0.10" not in in_namespace(rig, "conntrack", "-L")


def next_table(rig):
    """The handle of a table that is made now: the kernel counts them."""
    in_namespace(rig, "nft", "add", "table", "inet", "counted")
    listed = in_namespace(rig, "nft", "--handle", "list", "table", "inet", "counted")
    in_namespace(rig, "nft", "delete", "table", "inet", "counted")
    return int(listed.partition("# handle ")[2].split()[0])


def in_namespace(rig, *argv):
    with inside(rig.namespace):
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@only_nftables
def test_without_the_right_to(rig):
    done = run(rig, wrapped=as_ordinary_user([]))
    assert (done.returncode, done.stdout) == (5, "")
    assert "run it as root" in done.stderr
    assert "Traceback" not in done.stderr


def run(rig, *arguments, wrapped=()):
    return netctl(rig, "trace", "--without-daemons", *arguments, wrapped=wrapped)


def netctl(rig, *arguments, wrapped=()):
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "RUNTIME_DIRECTORY": "/nonexistent/nodenet"}
    argv = [*wrapped, NETCTL, *arguments]
    with inside(rig.namespace):
        return subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
