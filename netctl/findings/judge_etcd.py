"""Whether a store is safe, and whether what stands in it makes sense. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from controlloop.errors import OperatorError
from controlloop.family import Family
from netctl.findings.finding import Finding
from subnet_alloc.codec import MalformedError, parse_config, parse_lease
from subnet_alloc.model import Lease

FIXED = {(3, 5): 33, (3, 6): 14}
"""The patch release of each line from which on all known security fixes are in; lines before have none left, those
after began with them (etcd's advisories of July 2026).
"""
VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Member:
    version: str = ""
    """Empty when it did not answer."""
    alarms: tuple[str, ...] = ()
    error: str = ""
    is_refusal: bool = False
    """It answered, and does not let us in."""


@dataclass(frozen=True, slots=True)
class EtcdFacts:
    prefix: str
    members: Mapping[str, Member] = field(default_factory=dict)
    """By URL."""
    refusal: str = ""
    """Why our login may not read what nodes need; empty when it may."""
    stranger_reads: bool = False
    """Somebody without login and certificate reads the prefix."""
    reads_everything: bool = False
    """Our login reads keys outside the prefix."""
    config: bytes | None = None
    records: Mapping[str, bytes] = field(default_factory=dict)
    """By key below PREFIX/subnets/."""
    key_file: str = ""
    key_mode: int = 0


def judge_etcd(facts: EtcdFacts) -> Iterator[Finding]:
    for url, member in facts.members.items():
        yield from judge_member(url, member)
    if facts.key_mode & 0o077:
        yield Finding("NN411", facts.key_file, f"mode {facts.key_mode & 0o777:o}", next=f"ls -l {facts.key_file}")
    if not any(member.version for member in facts.members.values()):
        return
    if facts.stranger_reads:
        yield Finding("NN404", facts.prefix, "a caller without login and certificate read the key of the configuration")
    elif facts.reads_everything:
        yield Finding("NN405", facts.prefix, "this login could list all keys of the store, not only those below it")
    if facts.refusal:
        yield Finding("NN409", facts.prefix, facts.refusal)
        return
    yield from judge_config(facts)
    yield from judge_leases(facts)


def judge_member(url: str, member: Member) -> Iterator[Finding]:
    if member.error:
        yield Finding("NN409" if member.is_refusal else "NN401", url, member.error)
    if url.startswith("http://"):
        yield Finding("NN403", url, "the URL begins with http://")
    if is_old(member.version):
        wanted = " or ".join(f"{major}.{minor}.{patch}" for (major, minor), patch in FIXED.items())
        yield Finding("NN402", url, f"version {member.version}; {wanted} is the least")
    for alarm in member.alarms:
        yield Finding("NN410", url, alarm)


def is_old(version: str) -> bool:
    """What no number can be read from is not judged."""
    if not (found := VERSION.match(version)):
        return False
    major, minor, patch = map(int, found.groups())
    if (major, minor) in FIXED:
        return patch < FIXED[major, minor]
    return (major, minor) < min(FIXED)


def judge_config(facts: EtcdFacts) -> Iterator[Finding]:
    key = f"{facts.prefix}/config"
    look = f"etcdctl get {key}"
    if facts.config is None:
        yield Finding("NN408", key, "there is no such key", next=look)
        return
    try:
        parse_config(facts.config)
    except OperatorError as error:
        yield Finding("NN408", key, str(error), next=look)


def judge_leases(facts: EtcdFacts) -> Iterator[Finding]:
    leases: dict[str, Lease] = {}
    for key, value in facts.records.items():
        try:
            leases[key] = parse_lease(key, value)
        except MalformedError as error:
            path = f"{facts.prefix}/subnets/{key}"
            yield Finding("NN407", path, str(error), next=f"etcdctl get {path}")
    yield from same_address(leases)
    yield from overlapping(leases)


def same_address(leases: Mapping[str, Lease]) -> Iterator[Finding]:
    by_address: dict[str, list[str]] = {}
    for key, lease in sorted(leases.items()):
        for public_ip in lease.attrs.public_ip.values():
            by_address.setdefault(str(public_ip), []).append(key)
    for address, keys in by_address.items():
        if len(keys) > 1:
            yield Finding("NN406", f"node {address}", f"its address stands in {', '.join(keys)}")


def overlapping(leases: Mapping[str, Lease]) -> Iterator[Finding]:
    """Each subnet against the one that reaches furthest of those that begin before it."""
    for family in Family:
        held = ((lease.subnets[family], key) for key, lease in leases.items() if family in lease.subnets)
        furthest, name = -1, ""
        for first, last, key in sorted(
            (int(net.network_address), int(net.broadcast_address), key) for net, key in held
        ):
            if first <= furthest:
                yield Finding("NN406", f"{name} and {key}", f"their IPv{family.value} subnets overlap")
            if last > furthest:
                furthest, name = last, key
