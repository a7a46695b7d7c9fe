"""Asks nf_tables which tables and chains there are. A program that lists them costs a hundred times as much, and most
of the time the answer is: nothing of ours.
"""

import socket
from collections.abc import Iterator

from controlloop.family import Family
from controlloop.nft.dump import DATAGRAM, GENERATION, READINGS, REQUEST_DUMP, TIMEOUT_S, is_last
from controlloop.nft.monitor import NETLINK_NETFILTER
from controlloop.nft.notifications import HEADER, NEWCHAIN, NEWTABLE, SUBSYSTEM, Change, change_of, messages

GET_TABLE, GET_CHAIN = 1, 4  # NFT_MSG_GETTABLE, NFT_MSG_GETCHAIN


def may_have_table(family: Family, name: str) -> bool:
    """False only when it is not there. True as well where the kernel does not say, for a program to find out."""
    found = listed(family, GET_TABLE)
    return found is None or any(each.table == name for each in found)


def chains_of(family: Family) -> set[tuple[str, str]] | None:
    """Table and chain of each; None where the kernel does not say. Blocks."""
    found = listed(family, GET_CHAIN)
    return None if found is None else {(each.table, each.chain) for each in found}


def listed(family: Family, kind: int) -> list[Change] | None:
    """All of a kind. None when the kernel refuses, or the ruleset changed during each of several readings."""
    for _ in range(READINGS):
        try:
            answer = list(datagrams(family, kind))
        except OSError:
            return None
        # What only ends the answer says nothing of a generation.
        if len({each[GENERATION] for each in answer if any(messages(each))}) < 2:
            wanted = (NEWTABLE, NEWCHAIN)
            return [change_of(one) for each in answer for one in messages(each) if one.kind in wanted]
    return None


def datagrams(family: Family, kind: int) -> Iterator[bytes]:
    body = bytes([family.af, 0, 0, 0])
    request = HEADER.pack(HEADER.size + len(body), SUBSYSTEM << 8 | kind, REQUEST_DUMP, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as talk:
        talk.settimeout(TIMEOUT_S)
        talk.send(request)
        done = False
        while not done:
            datagram = talk.recv(DATAGRAM)
            yield datagram
            done = is_last(datagram)
