"""What systemd's own tools say about the files that an administrator installs.

Every judge is also shown a broken copy: one that accepts everything would prove nothing. Tools that would touch the
kernel run in network and mount namespaces of their own.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from controlloop.runtime import runtime_directory
from lab.host import as_daemon, daemon_uid
from netagent.config import read_flags, settings_from

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"
LIBEXEC = Path("/usr/lib/systemd")
DAEMONS = ["netagent", "netproxy"]
EXPOSURE_LIMIT = 2.0
AFFINITY = Path("netproxy.service.d/iptables-affinity.conf")
# A shell that reaches neither the machine's network nor its mounts.
APART = ("unshare", "--net", "--mount", "--propagation", "private", "sh", "-ec")

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (package systemd)"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)


def settings(path: Path) -> list[tuple[str, str]]:
    """All assignments of a unit or of another file of that style, in order."""
    lines = path.read_text().splitlines()
    return [tuple(line.split("=", 1)) for line in lines if re.match(r"-?[A-Za-z]", line)]


def service(daemon: str) -> dict[str, str]:
    return dict(settings(SYSTEMD / f"{daemon}.service"))


def copy_of(daemon: str, directory: Path, broken: tuple[str, str] = ("", "")) -> Path:
    """The unit as if it were installed: its program exists. No drop-in lies beside it."""
    text = (SYSTEMD / f"{daemon}.service").read_text().replace(*broken)
    path = directory / f"{daemon}.service"
    path.write_text(text.replace(f"/usr/lib/nodenet/bin/{daemon}", "/bin/true"))
    return path


def with_drop_in(unit: Path) -> Path:
    """What lies beside a unit: legacy iptables for netproxy, wireguard-go for netagent."""
    shutil.copytree(SYSTEMD / f"{unit.name}.d", unit.with_name(f"{unit.name}.d"))
    return unit


def complaints(unit: Path) -> str:
    verdict = run("systemd-analyze", "verify", "--man=no", unit)
    return verdict.stderr + (f"exit {verdict.returncode}" if verdict.returncode else "")


# Units


@pytest.mark.parametrize("daemon", DAEMONS)
def test_systemd_has_nothing_to_complain_about(daemon, tmp_path):
    assert complaints(copy_of(daemon, tmp_path)) == ""


@pytest.mark.parametrize("daemon", DAEMONS)
def test_nor_with_the_drop_in(daemon, tmp_path):
    assert complaints(with_drop_in(copy_of(daemon, tmp_path))) == ""


def test_a_mistake_in_a_drop_in_is_seen(tmp_path):
    unit = with_drop_in(copy_of("netagent", tmp_path))
    drop_in = tmp_path / "netagent.service.d/wireguard-go.conf"
    drop_in.write_text(drop_in.read_text().replace("KillMode=process", "KillMode=main"))
    assert complaints(unit) != ""


def test_one_file_is_the_unit_of_the_first_overlay_and_the_template_of_the_others(tmp_path):
    copy_of("netagent", tmp_path).rename(tmp_path / "netagent@.service")
    assert complaints(tmp_path / "netagent@2.service") == ""
    environment = service("netagent")["Environment"]
    assert read_instance(environment.replace("%i", "")) == (0, "/run/flannel/subnet.env")
    assert read_instance(environment.replace("%i", "2")) == (2, "/run/flannel/subnet2.env")


def read_instance(environment: str) -> tuple[int, str]:
    variables = dict(word.split("=", 1) for word in environment.split())
    settings = settings_from(read_flags([], variables), {}, "node-a")
    return settings.instance.number, settings.subnet_file


@pytest.mark.parametrize("daemon", DAEMONS)
@pytest.mark.parametrize(
    "broken",
    [
        ("Restart=always", "Restrat=always"),
        ("Type=notify", "Type=notfy"),
        ("WatchdogSec=20", "WatchdogSec=soon"),
        ("AmbientCapabilities", "AmbientCapability"),
        ("~@privileged", "~@priviledged"),
        ("/usr/lib/nodenet/bin/", "/usr/lib/nodenet/absent/"),
    ],
    ids=lambda pair: pair[1],
)
def test_a_mistake_in_a_unit_is_seen(daemon, broken, tmp_path):
    assert broken[0] in (SYSTEMD / f"{daemon}.service").read_text()
    assert complaints(copy_of(daemon, tmp_path, broken)) != ""


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_has_one_capability(daemon):
    unit = SYSTEMD / f"{daemon}.service"
    assert set(re.findall(r"CAP_\w+", unit.read_text())) == {"CAP_NET_ADMIN"}
    assert service(daemon)["AmbientCapabilities"] == service(daemon)["CapabilityBoundingSet"] == "CAP_NET_ADMIN"
    assert service(daemon)["User"] == service(daemon)["Group"] == "nodenet"


def test_legacy_iptables_adds_raw_sockets_and_its_lock_only():
    assert settings(SYSTEMD / "netproxy.service.d/legacy-iptables.conf") == [
        ("AmbientCapabilities", "CAP_NET_RAW"),
        ("CapabilityBoundingSet", "CAP_NET_RAW"),
        ("ReadWritePaths", "/run/xtables.lock"),
    ]


def test_sets_for_affinity_add_raw_sockets_only():
    assert settings(SYSTEMD / AFFINITY) == [
        ("AmbientCapabilities", "CAP_NET_RAW"),
        ("CapabilityBoundingSet", "CAP_NET_RAW"),
    ]


def test_wireguard_go_adds_one_device_and_its_sockets_and_outlives_the_daemon():
    assert settings(SYSTEMD / "netagent.service.d/wireguard-go.conf") == [
        ("KillMode", "process"),
        ("RuntimeDirectory", "wireguard"),
        ("PrivateDevices", "no"),
        ("DeviceAllow", "/dev/net/tun rw"),
    ]


# What systemd gives the daemon with that drop-in: the device as udev makes it, and a directory of its own.
WIREGUARD_GO = """
    mount -t tmpfs -o mode=755 tmpfs /run
    {directory}
    mount -t tmpfs tmpfs /dev/net
    mknod /dev/net/tun c 10 200
    chmod 666 /dev/net/tun
    {daemon} wireguard-go flannel-wg 2>/dev/null
    {daemon} wg show flannel-wg
    ip link del flannel-wg
"""


@needs_root
@pytest.mark.skipif(
    shutil.which("wireguard-go") is None or shutil.which("wg") is None or not Path("/dev/net/tun").exists(),
    reason="needs wireguard-go, wireguard-tools and /dev/net/tun",
)
def test_that_is_what_wireguard_go_needs():
    daemon, uid = " ".join(as_daemon([])), daemon_uid()
    directory = f"install -d -o {uid} /run/wireguard"
    shown = run(*APART, WIREGUARD_GO.format(daemon=daemon, directory=directory))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("interface: flannel-wg\n")
    assert run(*APART, WIREGUARD_GO.format(daemon=daemon, directory="")).returncode != 0


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_keeps_the_node_network_and_user_namespace(daemon):
    """The first holds what it programs; in a private second its capability would count for nothing."""
    assert not {"PrivateNetwork", "PrivateUsers"} & set(service(daemon))


@pytest.mark.parametrize("daemon", DAEMONS)
def test_stopping_a_daemon_changes_nothing(daemon):
    assert not {"ExecStop", "ExecStopPost", "ExecReload"} & set(service(daemon))
    assert service(daemon)["RuntimeDirectoryPreserve"] == "yes"


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_is_always_started_again(daemon):
    assert service(daemon).items() >= {"Restart": "always", "RestartSec": "5", "StartLimitIntervalSec": "0"}.items()


@pytest.mark.parametrize("daemon", DAEMONS)
def test_run_is_read_only_too(daemon):
    """ProtectSystem=strict leaves it writable beside ProtectProc= (seen on systemd 252)."""
    assert ("ReadOnlyPaths", "/run") in settings(SYSTEMD / f"{daemon}.service")


def test_both_daemons_live_in_the_same_sandbox():
    def sandbox(daemon):
        assignments = settings(SYSTEMD / f"{daemon}.service")
        return assignments[assignments.index(("AmbientCapabilities", "CAP_NET_ADMIN")) :]

    assert sandbox("netagent") == sandbox("netproxy")


def test_sockets_of_netagent_are_not_in_the_directory_of_flannel(monkeypatch):
    """systemd sorts RUNTIME_DIRECTORY, which puts /run/flannel first."""
    assert service("netagent")["RuntimeDirectory"].split() == ["nodenet", "flannel"]
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/flannel:/run/nodenet")
    assert runtime_directory() == Path("/run/nodenet")


@pytest.mark.parametrize("daemon", DAEMONS)
def test_options_come_from_the_file_that_documents_them(daemon):
    variable = f"{daemon.upper()}_OPTIONS"
    number = "%i" if daemon == "netagent" else ""
    assert service(daemon)["EnvironmentFile"] == f"-/etc/default/{daemon}{number}"
    assert service(daemon)["ExecStart"] == f"/usr/lib/nodenet/bin/{daemon} ${variable}"
    assert re.fullmatch(rf'{variable}="[^"$]*"', (SYSTEMD / "default" / daemon).read_text().splitlines()[-1])


# Exposure


def exposure(unit: Path) -> float:
    text = run("systemd-analyze", "security", "--no-pager", "--offline=true", unit).stdout
    return float(re.search(r"Overall exposure level for \S+: ([\d.]+)", text)[1])


def passes_threshold(unit: Path) -> bool:
    threshold = f"--threshold={EXPOSURE_LIMIT * 10:.0f}"
    return run("systemd-analyze", "security", "--no-pager", "--offline=true", threshold, unit).returncode == 0


def powers_left(unit: Path) -> set[str]:
    """Capabilities that systemd counts as not taken away."""
    found = run("systemd-analyze", "security", "--offline=true", "--json=short", unit)
    names = [entry["name"] for entry in json.loads(found.stdout) if entry["set"] is False]
    return {name for name in names if name.startswith("CapabilityBoundingSet=")}


@pytest.mark.parametrize("daemon", DAEMONS)
def test_exposure_stays_low(daemon, tmp_path, record_property):
    unit = copy_of(daemon, tmp_path)
    record_property("exposure", exposure(unit))
    assert exposure(unit) <= EXPOSURE_LIMIT
    assert passes_threshold(unit)
    assert powers_left(unit) == {"CapabilityBoundingSet=~CAP_NET_ADMIN"}


@pytest.mark.parametrize("daemon", DAEMONS)
def test_exposure_stays_low_with_the_drop_in(daemon, tmp_path, record_property):
    plain = exposure(copy_of(daemon, tmp_path))
    more = exposure(with_drop_in(tmp_path / f"{daemon}.service"))
    record_property("exposure", more)
    assert plain < more <= EXPOSURE_LIMIT


def test_exposure_stays_low_with_sets_for_affinity(tmp_path):
    unit = copy_of("netproxy", tmp_path)
    plain = exposure(unit)
    folder = tmp_path / AFFINITY.parent
    folder.mkdir()
    shutil.copy(SYSTEMD / AFFINITY, folder)
    assert plain < exposure(unit) <= 1.6


def test_a_unit_without_sandbox_fails_the_threshold(tmp_path):
    unit = tmp_path / "bare.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    assert exposure(unit) > 9
    assert not passes_threshold(unit)


# Users, and the lock of legacy iptables


@pytest.fixture
def root(tmp_path):
    """A file system root in which systemd-sysusers and systemd-tmpfiles may write."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/group").write_text("root:x:0:\n")
    (tmp_path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    for kind in ("sysusers.d", "tmpfiles.d"):
        shutil.copytree(SYSTEMD / kind, tmp_path / "usr/lib" / kind)
    return tmp_path


@needs_root
def test_the_user_is_made_without_login(root):
    made = run("systemd-sysusers", f"--root={root}", "nodenet.conf")
    assert (made.returncode, "Creating user 'nodenet'" in made.stderr) == (0, True), made.stderr
    user = next(line for line in (root / "etc/passwd").read_text().splitlines() if line.startswith("nodenet:"))
    assert user.endswith(":nodenet daemons:/run/nodenet:/usr/sbin/nologin")
    assert "\nnodenet:x:" in (root / "etc/group").read_text()


@needs_root
def test_a_mistake_in_the_user_is_seen(root):
    (root / "usr/lib/sysusers.d/nodenet.conf").write_text("user nodenet\n")
    assert run("systemd-sysusers", f"--root={root}", "nodenet.conf").returncode != 0


@needs_root
def test_the_lock_of_legacy_iptables_opens_for_the_daemon(root):
    run("systemd-sysusers", f"--root={root}", "nodenet.conf")
    (root / "run").mkdir()
    (root / "run/xtables.lock").touch(mode=0o600)
    opened = run("systemd-tmpfiles", "--create", f"--root={root}", "nodenet-legacy-iptables.conf")
    lock = (root / "run/xtables.lock").stat()
    user = next(line for line in (root / "etc/passwd").read_text().splitlines() if line.startswith("nodenet:"))
    assert (opened.returncode, opened.stderr) == (0, "")
    assert (lock.st_uid, lock.st_gid, lock.st_mode & 0o777) == (int(user.split(":")[2]), 0, 0o660)


# Kernel settings and modules


def apply_sysctl(path: Path) -> subprocess.CompletedProcess[str]:
    return run(*APART, f"{LIBEXEC}/systemd-sysctl {path}; cat /proc/sys/net/ipv4/ip_forward")


@needs_root
def test_sysctl_lets_a_node_forward():
    path = SYSTEMD / "sysctl.d/60-nodenet.conf"
    keys = [name.strip() for name, _ in settings(path)]
    # The other trees belong to the whole machine, and a network namespace does not keep them apart.
    assert all(name.startswith(("net.ipv4.", "-net.bridge.")) for name in keys)
    applied = apply_sysctl(path)
    assert (applied.returncode, applied.stdout, applied.stderr) == (0, "1\n", "")


@needs_root
@pytest.mark.parametrize("line", ["net.ipv4.ip_forward 1", "net.ipv4.ip_foward = 1"])
def test_a_mistake_in_sysctl_is_seen(line, tmp_path):
    broken = tmp_path / "broken.conf"
    broken.write_text(line + "\n")
    assert apply_sysctl(broken).stderr != ""


def test_modules_are_names_one_to_a_line():
    lines = (SYSTEMD / "modules-load.d/nodenet.conf").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ["vxlan", "br_netfilter", "nf_conntrack"]


def test_options_are_of_modules_that_this_kernel_knows():
    lines = (SYSTEMD / "modprobe.d/nodenet.conf").read_text().splitlines()
    [line] = [line for line in lines if line and not line.startswith("#")]
    word, module, *options = line.split()
    assert word == "options"
    parameters = Path("/sys/module") / module / "parameters"
    if not parameters.exists():
        pytest.skip(f"needs the module {module}")
    assert {option.partition("=")[0] for option in options} <= {path.name for path in parameters.iterdir()}


# networkd and udev


def started_networkd(drop_in: Path) -> str:
    """What systemd-networkd says of its configuration until it has seen all links."""
    script = f"""
        mount -t tmpfs -o mode=755 tmpfs /run
        mkdir -p /run/systemd/networkd.conf.d
        cp {drop_in} /run/systemd/networkd.conf.d/nodenet.conf
        exec {LIBEXEC}/systemd-networkd
    """
    said = []
    with subprocess.Popen([*APART, script], stderr=subprocess.PIPE, text=True) as networkd:
        for line in networkd.stderr:
            said.append(line)
            if "Enumeration completed" in line:
                break
        networkd.kill()
    return "".join(said)


@needs_root
def test_networkd_is_told_to_keep_foreign_routes_and_rules():
    drop_in = SYSTEMD / "networkd.conf.d/nodenet.conf"
    assert dict(settings(drop_in)) == {"ManageForeignRoutes": "no", "ManageForeignRoutingPolicyRules": "no"}
    said = started_networkd(drop_in)
    assert "nodenet.conf" not in said
    assert "Enumeration completed" in said


@needs_root
def test_a_mistake_in_the_networkd_drop_in_is_seen(tmp_path):
    broken = tmp_path / "nodenet.conf"
    broken.write_text("[Network]\nManageForeignRouts=no\n")
    assert "nodenet.conf:2: Unknown key" in started_networkd(broken)


def test_udev_keeps_the_mac_address_of_overlay_devices():
    """Compared as text: udevadm, which reads such files, is not in package systemd."""
    assert dict(settings(SYSTEMD / "network/10-nodenet.link")) == {
        "OriginalName": "flannel.* flannel-v6.*",
        "MACAddressPolicy": "none",
    }


@pytest.mark.parametrize("daemon", DAEMONS)
def test_every_documented_flag_is_one(daemon):
    documented = set(re.findall(r"--[a-z][a-z0-9-]+", (SYSTEMD / "default" / daemon).read_text()))
    help_text = subprocess.run(
        [Path(sys.executable).parent / daemon, "--help"], capture_output=True, text=True, check=True
    )
    assert documented
    assert documented <= set(re.findall(r"--[a-z][a-z0-9-]+", help_text.stdout))
