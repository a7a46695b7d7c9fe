"""The CNI plugin `flannel`: what netagent leased becomes the configuration of another plugin, which does the work.

One file of the standard library alone, so that a copy of it runs by itself within a few ten milliseconds
(`netagent --install-cni`). Fields, defaults and saved files are those of flannel's plugin; protocol and error codes are
those of the CNI specification 1.1.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Container, Mapping
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_interface

VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
FIRST_WITH_CHECK = "0.4.0"
SUBNET_FILE = "/run/flannel/subnet.env"
DATA_DIR = "/var/lib/cni/flannel"
FAMILIES = ("FLANNEL_", "FLANNEL_IPV6_")

CONTAINER_UNKNOWN, BAD_ENVIRONMENT, IO_FAILURE, UNDECODABLE, BAD_CONFIG, TRY_LATER, UNAVAILABLE = 3, 4, 5, 6, 7, 11, 50
ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes longer to import than all that it serves
    from typing import Any

    Config = dict[str, Any]


class CniError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def main() -> int:
    version = VERSIONS[-1]
    try:
        config = read_config()
        version = config.get("cniVersion", "") or FIRST_WITH_CHECK
        return act(os.environ.get("CNI_COMMAND", ""), config)
    except CniError as error:
        print(json.dumps({"cniVersion": version, "code": error.code, "msg": f"flannel: {error}", "details": ""}))
        return 1


def read_config() -> Config:
    # By bytes: with no locale the text layer would take ASCII alone.
    raw = sys.stdin.buffer.read()
    try:
        config = json.loads(raw or b"{}")
    except ValueError as error:
        raise CniError(UNDECODABLE, f"network configuration: {error}") from None
    if not isinstance(config, dict) or not isinstance(config.get("cniVersion", ""), str):
        raise CniError(UNDECODABLE, "network configuration: want a JSON object with a cniVersion")
    return config


def act(command: str, config: Config) -> int:
    """The exit code. What succeeds prints its result, through the delegate if there is one."""
    if command == "VERSION":
        print(json.dumps({"cniVersion": config.get("cniVersion") or VERSIONS[-1], "supportedVersions": VERSIONS}))
        return 0
    if command == "STATUS":
        return status(config)
    if command == "GC":
        return collect_garbage(config)
    if command not in {"ADD", "DEL", "CHECK"}:
        raise CniError(BAD_ENVIRONMENT, f'CNI_COMMAND "{command}": want ADD, DEL, CHECK, GC, STATUS or VERSION')
    saved = os.path.join(text_of(config, "dataDir", DATA_DIR), container_id())  # noqa: PTH118 - pathlib costs 10 ms
    return {"ADD": add, "DEL": delete, "CHECK": check}[command](config, saved)


def add(config: Config, saved: str) -> int:
    delegate = render(config, read_facts(text_of(config, "subnetFile", SUBNET_FILE), TRY_LATER))
    # Saved first: after an ADD that failed half-way the runtime sends a DEL, and that needs it.
    save(saved, delegate)
    return run_delegate(delegate)


def delete(_config: Config, saved: str) -> int:
    delegate = load(saved)
    if delegate is None:
        return 0
    code = run_delegate(delegate)
    if code == 0:
        with suppress(FileNotFoundError):
            os.unlink(saved)  # noqa: PTH108 - pathlib costs 10 ms
    return code


def check(config: Config, saved: str) -> int:
    if numbers(config.get("cniVersion") or VERSIONS[0]) < numbers(FIRST_WITH_CHECK):
        return 0
    delegate = load(saved)
    if delegate is None:
        raise CniError(CONTAINER_UNKNOWN, f"{saved}: no such file; the container was not added here")
    return run_delegate({**delegate, "cniVersion": config["cniVersion"], "prevResult": config.get("prevResult")})


def status(config: Config) -> int:
    read_facts(text_of(config, "subnetFile", SUBNET_FILE), UNAVAILABLE)
    return 0


def collect_garbage(config: Config) -> int:
    """Drop what is saved for this network's containers that are gone, after the delegate dropped its part."""
    valid = objects(config, "cni.dev/valid-attachments", dict)
    facts = read_facts(text_of(config, "subnetFile", SUBNET_FILE), TRY_LATER)
    code = run_delegate({**render(config, facts), "cni.dev/valid-attachments": valid})
    kept = {str(entry.get("containerID")) for entry in valid}
    for path in saved_files(text_of(config, "dataDir", DATA_DIR), kept) if code == 0 else ():
        if (load(path) or {}).get("name") == config.get("name"):
            os.unlink(path)  # noqa: PTH108
    return code


def saved_files(folder: str, valid: Container[str]) -> list[str]:
    """Those of containers that are not valid any more; a name with a dot is a file that is only being written."""
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except FileNotFoundError:
        return []
    return [os.path.join(folder, name) for name in names if name[0] != "." and name not in valid]  # noqa: PTH118


# What the delegate is told


def read_facts(path: str, code: int) -> Mapping[str, str]:
    """The subnet file, which must say all that ADD needs; else CniError with `code`."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            lines = [line.partition("=") for line in file]
    except OSError as error:
        raise CniError(code, f"{path}: {error.strerror}; is netagent running?") from None
    facts = {name.strip(): value.strip().strip("\"'") for name, _, value in lines}
    families = [prefix for prefix in FAMILIES if facts.get(f"{prefix}SUBNET")]
    wanted = ["FLANNEL_MTU", "FLANNEL_IPMASQ", *(f"{prefix}NETWORK" for prefix in families or ["FLANNEL_"])]
    missing = [name for name in wanted if not facts.get(name)] + ([] if families else ["FLANNEL_SUBNET"])
    if missing:
        raise CniError(code, f"{path}: {', '.join(missing)} missing")
    return facts


def render(config: Config, facts: Mapping[str, str]) -> Config:
    delegate = config.get("delegate") or {}
    if not isinstance(delegate, dict):
        raise CniError(BAD_CONFIG, "delegate: want an object")
    for name in ("name", "ipam"):
        if name in delegate:
            raise CniError(BAD_CONFIG, f"delegate.{name}: must not be given, the plugin fills it in")
    kind = delegate.get("type", "bridge")
    filled = {"type": kind, "ipMasq": facts["FLANNEL_IPMASQ"] != "true", "mtu": number(facts, "FLANNEL_MTU")}
    if kind == "bridge":
        filled["isGateway"] = True
    passed = {name: config[name] for name in ("cniVersion", "name", "runtimeConfig", "args") if config.get(name)}
    return {**filled, **delegate, **passed, "ipam": render_ipam(config.get("ipam") or {}, facts)}


def render_ipam(ipam: Any, facts: Mapping[str, str]) -> Config:
    """What the configuration says of IPAM, with our subnets and the ways to our networks added."""
    if not isinstance(ipam, dict):
        raise CniError(BAD_CONFIG, "ipam: want an object")
    ranges, routes = objects(ipam, "ranges", list), objects(ipam, "routes", dict)
    for prefix in (prefix for prefix in FAMILIES if facts.get(f"{prefix}SUBNET")):
        subnet = network(facts[f"{prefix}SUBNET"])
        ranges.append([{"subnet": str(subnet)}])
        known = [route.get("dst") for route in routes]
        # host-local takes the same gateway, but the bridge plugin's CHECK looks for a route as it stands here.
        gateway = str(subnet.network_address + 1)
        networks = map(str, map(network, facts[f"{prefix}NETWORK"].split(",")))
        routes += [{"dst": text, "gw": gateway} for text in networks if text not in known]
    return {"type": "host-local", **ipam, "ranges": ranges, "routes": routes}


def network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_interface(text.strip()).network
    except ValueError:
        raise CniError(BAD_CONFIG, f"subnet file: {text}: not a network") from None


def number(facts: Mapping[str, str], name: str) -> int:
    if not facts[name].isdecimal():
        raise CniError(BAD_CONFIG, f"subnet file: {name}={facts[name]}: not a number")
    return int(facts[name])


def numbers(version: str) -> list[int]:
    try:
        return [int(part) for part in version.split(".")]
    except ValueError:
        raise CniError(BAD_CONFIG, f"cniVersion {version}: not a version") from None


def objects(config: Config, name: str, kind: type) -> list[Any]:
    """A copy of a list, empty when it is not given."""
    found = config.get(name) or []
    if not isinstance(found, list) or not all(isinstance(each, kind) for each in found):
        raise CniError(BAD_CONFIG, f"{name}: want a list of {'lists' if kind is list else 'objects'}")
    return list(found)


def text_of(config: Config, name: str, default: str) -> str:
    text = config.get(name) or default
    if not isinstance(text, str):
        raise CniError(BAD_CONFIG, f"{name} {text}: want a path")
    return text


def container_id() -> str:
    """It becomes the name of a file."""
    name = os.environ.get("CNI_CONTAINERID", "")
    if not name or name[0] in "_.-" or not ID_CHARACTERS.issuperset(name):
        raise CniError(BAD_ENVIRONMENT, f'CNI_CONTAINERID "{name}": want letters, digits, _ . and -')
    return name


# What is kept from ADD to DEL


def save(path: str, delegate: Config) -> None:
    folder, name = os.path.split(path)
    fresh = os.path.join(folder, f".{name}.{os.getpid()}")  # noqa: PTH118
    try:
        os.makedirs(folder, 0o700, exist_ok=True)  # noqa: PTH103
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(handle, "wb") as file:  # noqa: PTH123
            file.write(json.dumps(delegate).encode())
        os.rename(fresh, path)  # noqa: PTH104
    except OSError as error:
        raise CniError(IO_FAILURE, f"{path}: {error.strerror}") from None


def load(path: str) -> Config | None:
    """None for a container that was never added, or is deleted already."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            delegate = json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CniError(IO_FAILURE, f"{path}: {error}") from None
    if not isinstance(delegate, dict):
        raise CniError(IO_FAILURE, f"{path}: want a JSON object")
    return delegate


# The delegate


def run_delegate(delegate: Config) -> int:
    """It gets our environment and prints the answer itself, a result or an error."""
    program = find_plugin(delegate.get("type"))
    stdin = os.memfd_create("cni")
    os.write(stdin, json.dumps({name: value for name, value in delegate.items() if value is not None}).encode())
    os.lseek(stdin, 0, os.SEEK_SET)
    try:
        process = os.posix_spawn(program, [program], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, stdin, 0)])
    except OSError as error:
        raise CniError(IO_FAILURE, f"{program}: {error.strerror}") from None
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def find_plugin(kind: Any) -> str:
    if not isinstance(kind, str) or not kind or "/" in kind or kind == "flannel":
        raise CniError(BAD_CONFIG, f"delegate.type {kind}: not a plugin to hand over to")
    folders = os.environ.get("CNI_PATH", "")
    for folder in filter(None, folders.split(":")):
        path = os.path.join(folder, kind)  # noqa: PTH118
        if os.access(path, os.X_OK):
            return path
    raise CniError(BAD_ENVIRONMENT, f"plugin {kind}: not found in CNI_PATH {folders}")


if __name__ == "__main__":
    sys.exit(main())
