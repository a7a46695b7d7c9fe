"""Asks a node for what a picture needs."""

from controlloop.client import UnreachableError
from netctl.findings.finding import ordered
from netctl.graph.answers import AGENT_PAGES, NodeAnswers
from netctl.node import PROXY, Node
from netctl.status.node_status import read_status

FRONTENDS_PAGE = "/frontends"


def read_answers(node: Node, name: str = "", address: str = "") -> NodeAnswers:
    """`name` is for a node whose daemons are all silent: then it does not tell its own."""
    status = read_status(node)
    silent = [daemon for daemon, document in status.daemons.items() if document is None]
    agents, frontends = {}, None
    for daemon in status.daemons:
        if daemon in silent:
            continue
        try:
            if daemon == PROXY:
                frontends = node.page(daemon, FRONTENDS_PAGE)["items"]
            else:
                agents[daemon] = {page: node.page(daemon, f"/{page}") for page in AGENT_PAGES}
        except UnreachableError:  # ended since, or of another version
            silent.append(daemon)
    own = status.node or name or "this node"
    return NodeAnswers(own, node.now, ordered(status.findings), agents, frontends, silent, address)
