"""A proxy, and the calls that judge it."""

import itertools
import subprocess
from collections import Counter

import pytest
from calls import Call
from crafted import stray, throw
from namespace import inside
from network import ADDRESSES, HOST_OF
from tables import ANSWER_WITHIN_S, DROPPED_AFTER_S, read, told
from under_test import IPTABLES, NFTABLES, Proxy

from controlloop.family import Family
from proxy.frontends import Protocol

only_nftables = pytest.mark.parametrize("rig", [NFTABLES], indirect=True, scope="module")
only_iptables = pytest.mark.parametrize("rig", IPTABLES, indirect=True, scope="module")

AT_ONCE = 2000
"""Calls that are open together: each takes two files."""


class Rig(Proxy):
    """A proxy on node-1 of a network in which calls can be placed."""

    def __init__(self, board, variant):
        super().__init__(board.network.namespace("node-1"), variant)
        self.board = board

    def given(self, *objects, **others):
        """As of a proxy; and nobody is connected any more."""
        self.board.hang_up()
        super().given(*objects, **others)
        self.forget_connections()

    def forget_connections(self):
        with inside(self.namespace):
            subprocess.run(["conntrack", "-F"], check=True, capture_output=True)

    def expect(self, table, families=tuple(Family)):
        """Judge every line of a table; all that are wrong are told at once, each with what happened instead."""
        judged = [(row, family, row.calls(family)) for row in read(table) for family in families]
        together = [each for each in judged if each[0].protocol is not Protocol.SCTP]
        wait_of = {id(call): row.wait_s for row, _, calls in judged for call in calls}
        # An ICMP error reaches every raw socket that speaks with the address, so SCTP takes one flow at a time.
        for batch in [together, *([each] for each in judged if each not in together)]:
            calls = [call for _, _, several in batch for call in several]
            self.board.place(calls, wait=lambda call: wait_of[id(call)])
            self.board.hang_up(calls)
        wrong = [
            f"{row.text}  but over IPv{family.value}: {told(calls)}"
            for row, family, calls in judged
            if not row.fits(calls)
        ]
        assert not wrong, "\n".join(["", *wrong])

    def call(self, caller, target, port, *, protocol="tcp", count=1, family=Family.V4, sources=(None,)):
        """Calls that stay open until other objects are given, answered or not."""
        each_from = itertools.islice(itertools.cycle(sources), count)
        calls = [Call(caller, ADDRESSES[target][family], port, Protocol(protocol), source) for source in each_from]
        return self.board.place(calls, wait=lambda _: ANSWER_WITHIN_S)

    def spread(self, *arguments, **options):
        """How often each server answered."""
        calls = self.call(*arguments, **options)
        self.board.hang_up(calls)
        return Counter(call.outcome for call in calls)

    def landed(self, clients, target="cluster-ip", port=80, **options):
        """Where each of many addresses behind the client lands, in order."""
        outcomes = []
        for start in range(0, len(clients), AT_ONCE):
            some = clients[start : start + AT_ONCE]
            family = Family.of(some[0])
            calls = self.call("client", target, port, family=family, sources=some, count=len(some), **options)
            self.board.hang_up(calls)
            outcomes += [call.outcome for call in calls]
        return outcomes

    def echo(self, data, *arguments, **options):
        """How much of `data` comes back, of a stream; of a datagram, how much has arrived."""
        (call,) = self.call(*arguments, **options)
        assert call.outcome, "no answer at all"
        return self.board.echo(call, data, within_s=ANSWER_WITHIN_S)

    def ping(self, caller, address):
        """(somebody refused it, it was answered)"""
        with inside(self.board.network.namespace(HOST_OF.get(caller, caller))):
            done = subprocess.run(
                ["ping", "-n", "-c1", "-W", str(DROPPED_AFTER_S), str(address)],
                check=False,
                capture_output=True,
                text=True,
            )
        return "nreachable" in done.stdout or "not permitted" in done.stderr, done.returncode == 0

    def tracked(self, call):
        """What the node's conntrack knows of this call, found by its port, which no other call has; empty: nothing."""
        argv = ["conntrack", "-L", "-f", f"ipv{Family.of(call.address).value}", "-p", call.protocol.value]
        with inside(self.namespace):
            listing = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        return next((line.split() for line in listing.splitlines() if f"sport={call.own_port} " in line), [])

    def throw(self, caller, target, port, *, count):
        """Datagrams to the node in frames made by hand, whatever the caller's routes say; who heard how many."""
        return throw(self.board, caller, [(target, port)] * count)

    def stray(self, server, call):
        """A packet of this server into a connection to it, from far outside of the window."""
        stray(self.board, server, call)
