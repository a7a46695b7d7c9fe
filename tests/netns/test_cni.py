"""Our CNI plugin as a runtime calls it: as a program, with Debian's bridge and host-local below it."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from namespace import fresh_namespace

from netagent.cni.install import conflist, install_conflist, install_plugin
from netagent.instance import FIRST, Instance

DEBIANS = "/usr/lib/cni"
SUBNET_ENV = """\
FLANNEL_NETWORK=10.5.0.0/16
FLANNEL_SUBNET=10.5.72.1/24
FLANNEL_IPV6_NETWORK=fc00:5::/48
FLANNEL_IPV6_SUBNET=fc00:5:0:7::1/64
FLANNEL_MTU=1430
FLANNEL_IPMASQ=true
"""

pytestmark = pytest.mark.skipif(not Path(DEBIANS, "bridge").exists(), reason="no containernetworking-plugins")


class Runtime:
    """A node's container runtime, with what the plugin keeps in a folder of the test."""

    def __init__(self, folder, node, pod):
        self.folder, self.node, self.pod = folder, node, pod
        self.subnet_file, self.saved = folder / "subnet.env", folder / "saved"
        self.subnet_file.write_text(SUBNET_ENV)
        install_plugin(str(folder / "bin"))
        self.config = {
            "cniVersion": "1.0.0",
            "name": "cbr0",
            "type": "flannel",
            "subnetFile": str(self.subnet_file),
            "dataDir": str(self.saved),
            "ipam": {"dataDir": str(folder / "ipam")},
            "delegate": {"hairpinMode": True, "isDefaultGateway": True},
        }

    def call(self, command, container="pod-1", **more):
        """(exit code, the answer as JSON or None)."""
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{self.pod}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": f"{self.folder}/bin:{self.folder}/recorder:{DEBIANS}",
            "PATH": os.environ["PATH"],
        }
        program = ["ip", "netns", "exec", self.node, str(self.folder / "bin/flannel")]
        text = json.dumps({**self.config, **more})
        done = subprocess.run(program, input=text, env=environment, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout) if done.stdout else None

    def record(self, exit_code=0):
        """From now on the delegate is a program that only notes what it is told."""
        heard = self.folder / "heard.json"
        program = self.folder / "recorder/bridge"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\ncat >{heard}\nexit {exit_code}\n")
        program.chmod(0o755)
        return heard


@pytest.fixture
def runtime(tmp_path):
    with fresh_namespace() as node, fresh_namespace() as pod:
        yield Runtime(tmp_path, node, pod)


def in_namespace(name, *argv):
    return subprocess.run(["ip", "-n", name, *argv], capture_output=True, text=True, check=True).stdout


def test_a_pod_gets_both_families_the_mtu_and_a_way_to_the_overlay(runtime):
    code, result = runtime.call("ADD")
    assert code == 0
    assert [ip["address"] for ip in result["ips"]] == ["10.5.72.2/24", "fc00:5:0:7::2/64"]
    assert "mtu 1430" in in_namespace(runtime.pod, "link", "show", "eth0")
    assert "10.5.0.0/16 via 10.5.72.1" in in_namespace(runtime.pod, "route")
    assert "default via 10.5.72.1" in in_namespace(runtime.pod, "route")
    assert "fc00:5::/48 via fc00:5:0:7::1" in in_namespace(runtime.pod, "-6", "route")
    assert "hairpin on" in in_namespace(runtime.node, "-d", "link", "show", "master", "cni0")


def test_what_the_delegate_is_told_is_kept_for_root_alone(runtime):
    runtime.call("ADD")
    saved = runtime.saved / "pod-1"
    assert saved.stat().st_mode & 0o777 == 0o600
    assert runtime.saved.stat().st_mode & 0o777 == 0o700
    assert json.loads(saved.read_text()) == {
        "cniVersion": "1.0.0",
        "name": "cbr0",
        "type": "bridge",
        "ipMasq": False,
        "mtu": 1430,
        "isGateway": True,
        "hairpinMode": True,
        "isDefaultGateway": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(runtime.folder / "ipam"),
            "ranges": [[{"subnet": "10.5.72.0/24"}], [{"subnet": "fc00:5:0:7::/64"}]],
            "routes": [{"dst": "10.5.0.0/16", "gw": "10.5.72.1"}, {"dst": "fc00:5::/48", "gw": "fc00:5:0:7::1"}],
        },
    }
    assert list(runtime.saved.iterdir()) == [saved]


def test_delete_replays_what_was_added_and_may_be_repeated(runtime):
    runtime.call("ADD")
    # The agent's file is of no matter: the container was added by what was saved.
    runtime.subnet_file.unlink()
    assert runtime.call("DEL") == (0, None)
    assert "eth0" not in in_namespace(runtime.pod, "link")
    assert not list(runtime.saved.iterdir())
    assert runtime.call("DEL") == (0, None)
    assert runtime.call("DEL", container="never-added") == (0, None)


def test_a_delete_that_failed_can_be_tried_again(runtime):
    runtime.call("ADD")
    heard = runtime.record(exit_code=1)
    assert runtime.call("DEL")[0] == 1
    assert json.loads(heard.read_text())["type"] == "bridge"
    assert (runtime.saved / "pod-1").exists()


def test_check_finds_what_somebody_changed(runtime):
    _, result = runtime.call("ADD")
    assert runtime.call("CHECK", prevResult=result) == (0, None)
    in_namespace(runtime.pod, "addr", "del", "10.5.72.2/24", "dev", "eth0")
    code, error = runtime.call("CHECK", prevResult=result)
    assert code == 1
    assert "10.5.72.2" in error["msg"]


def test_check_of_a_container_that_is_not_here_says_so(runtime):
    code, error = runtime.call("CHECK", container="elsewhere")
    assert (code, error["code"]) == (1, 3)


def test_before_cni_0_4_there_is_nothing_to_check(runtime):
    assert runtime.call("CHECK", container="elsewhere", cniVersion="0.3.1") == (0, None)


def test_status_is_ready_when_the_subnet_file_is_complete(runtime):
    assert runtime.call("STATUS", cniVersion="1.1.0") == (0, None)
    runtime.subnet_file.write_text(SUBNET_ENV.replace("FLANNEL_MTU=1430\n", ""))
    code, error = runtime.call("STATUS", cniVersion="1.1.0")
    assert (code, error["code"], error["cniVersion"]) == (1, 50, "1.1.0")
    assert error["msg"] == f"flannel: {runtime.subnet_file}: FLANNEL_MTU missing"


def test_while_the_agent_has_no_lease_the_runtime_is_told_to_try_later(runtime):
    runtime.subnet_file.unlink()
    code, error = runtime.call("ADD")
    assert (code, error["code"]) == (1, 11)
    assert error["msg"].endswith("No such file or directory; is netagent running?")
    assert not runtime.saved.exists()


def test_garbage_of_this_network_alone_is_collected(runtime):
    runtime.call("ADD")
    heard = runtime.record()
    foreign = runtime.saved / "foreign"
    foreign.write_text('{"name":"other"}')
    (runtime.saved / "gone").write_text('{"name":"cbr0"}')
    valid = [{"containerID": "pod-1", "ifname": "eth0"}]
    assert runtime.call("GC", **{"cni.dev/valid-attachments": valid}) == (0, None)
    assert {path.name for path in runtime.saved.iterdir()} == {"pod-1", "foreign"}
    assert json.loads(heard.read_text())["cni.dev/valid-attachments"] == valid


def test_version_names_what_it_speaks(runtime):
    code, answer = runtime.call("VERSION", cniVersion="0.4.0")
    assert (code, answer["cniVersion"], answer["supportedVersions"][-1]) == (0, "0.4.0", "1.1.0")


def test_the_configuration_wins_over_what_is_derived(runtime):
    heard = runtime.record()
    route = {"dst": "10.5.0.0/16", "gw": "10.5.72.9"}
    delegate = {"type": "bridge", "mtu": 1200, "ipMasq": True, "isGateway": False}
    ipam = {"type": "dhcp", "ranges": [[{"subnet": "10.9.0.0/24"}]], "routes": [route]}
    runtime.call("ADD", delegate=delegate, ipam=ipam, runtimeConfig={"mac": "02:00:00:00:00:01"})
    told = json.loads(heard.read_text())
    assert {name: told[name] for name in delegate} == delegate
    assert told["runtimeConfig"] == {"mac": "02:00:00:00:00:01"}
    assert told["ipam"]["type"] == "dhcp"
    assert told["ipam"]["ranges"][0] == [{"subnet": "10.9.0.0/24"}]
    assert told["ipam"]["routes"][0] == route
    assert [each["dst"] for each in told["ipam"]["routes"]] == ["10.5.0.0/16", "fc00:5::/48"]


def test_an_older_flannels_file_without_masquerade_makes_the_bridge_do_it(runtime):
    runtime.subnet_file.write_text(
        'FLANNEL_NETWORK="10.5.0.0/16,10.6.0.0/16"\nFLANNEL_SUBNET=10.5.72.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n'
    )
    heard = runtime.record()
    runtime.call("ADD")
    told = json.loads(heard.read_text())
    assert told["ipMasq"] is True
    assert [route["dst"] for route in told["ipam"]["routes"]] == ["10.5.0.0/16", "10.6.0.0/16"]


@pytest.mark.parametrize(
    ("call", "config", "code", "named"),
    [
        (("ADD", "../../etc/passwd"), {}, 4, "../../etc/passwd"),
        (("ADD", ""), {}, 4, "CNI_CONTAINERID"),
        (("LOOK", "pod-1"), {}, 4, "LOOK"),
        (("ADD", "pod-1"), {"delegate": {"ipam": {}}}, 7, "delegate.ipam"),
        (("ADD", "pod-1"), {"delegate": {"name": "x"}}, 7, "delegate.name"),
        (("ADD", "pod-1"), {"delegate": [1]}, 7, "delegate"),
        (("ADD", "pod-1"), {"delegate": {"type": "../bridge"}}, 7, "../bridge"),
        (("ADD", "pod-1"), {"delegate": {"type": "flannel"}}, 7, "flannel"),
        (("ADD", "pod-1"), {"delegate": {"type": "no-such-plugin"}}, 4, "no-such-plugin"),
        (("ADD", "pod-1"), {"ipam": 7}, 7, "ipam"),
        (("ADD", "pod-1"), {"ipam": {"ranges": 7}}, 7, "ranges"),
        (("ADD", "pod-1"), {"ipam": {"routes": ["10.0.0.0/8"]}}, 7, "routes"),
        (("GC", ""), {"cni.dev/valid-attachments": [7]}, 7, "valid-attachments"),
        (("ADD", "pod-1"), {"dataDir": 7}, 7, "dataDir"),
        (("CHECK", "pod-1"), {"cniVersion": "new"}, 7, "cniVersion new"),
        (("ADD", "pod-1"), {"cniVersion": 1}, 6, "cniVersion"),
    ],
)
def test_bad_input_is_an_error_of_cni_that_names_it(runtime, call, config, code, named):
    exit_code, error = runtime.call(*call, **config)
    assert (exit_code, error["code"]) == (1, code)
    assert error["msg"].startswith("flannel: ")
    assert named in error["msg"]


def test_ipv6_alone(runtime):
    runtime.subnet_file.write_text("\n".join(SUBNET_ENV.splitlines()[2:]))
    _, result = runtime.call("ADD")
    assert [ip["address"] for ip in result["ips"]] == ["fc00:5:0:7::2/64"]


@pytest.mark.parametrize(
    ("line", "named"), [("FLANNEL_MTU=large", "FLANNEL_MTU=large"), ("FLANNEL_SUBNET=10.5.72/24", "10.5.72/24")]
)
def test_a_wrong_subnet_file_is_named(runtime, line, named):
    name = line.partition("=")[0]
    kept = [each for each in SUBNET_ENV.splitlines() if not each.startswith(f"{name}=")]
    runtime.subnet_file.write_text("\n".join([*kept, line, ""]))
    code, error = runtime.call("ADD")
    assert (code, error["code"]) == (1, 7)
    assert named in error["msg"]


def test_the_conflist_is_put_in_place_whole(tmp_path):
    path = tmp_path / "net.d/10-flannel.conflist"
    for _ in range(2):
        install_conflist(str(path), conflist(FIRST, "/run/flannel/subnet.env"))
    assert json.loads(path.read_text()) == {
        "name": "cbr0",
        "cniVersion": "0.4.0",
        "plugins": [
            {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.flannel("20")
def test_a_second_overlay_has_a_network_a_bridge_and_memory_of_its_own(runtime):
    second = conflist(Instance(2), str(runtime.subnet_file))
    network = second["plugins"][0]
    assert second["name"] == "cbr2"
    assert network["dataDir"] == "/var/lib/cni/flannel2"
    code, result = runtime.call("ADD", **{**network, "name": second["name"], "dataDir": str(runtime.saved)})
    assert (code, result["ips"][0]["address"]) == (0, "10.5.72.2/24")
    assert "10.5.72.1/24" in in_namespace(runtime.node, "address", "show", "dev", "cni2")


def test_the_plugin_is_a_program_of_the_standard_library_alone(tmp_path):
    install_plugin(str(tmp_path))
    program = tmp_path / "flannel"
    assert program.stat().st_mode & 0o777 == 0o755
    assert program.read_text().partition("\n")[0].endswith(" -IS")
    done = subprocess.run(
        ["/usr/bin/env", "-i", "CNI_COMMAND=VERSION", str(program)],
        input="",
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["cniVersion"] == "1.1.0"
