"""netagent, the overlay agent of one node."""

import logging
import os
import sys

import click

from controlloop import __version__
from controlloop.daemon import run_daemon
from controlloop.flags import run_command
from controlloop.logs import configure
from netagent.config import (
    ETCD_ENDPOINTS,
    ETCD_PREFIX,
    SUBNET_FILE,
    Settings,
    parse_node_name,
    parse_public_ip,
    parse_subnet_file,
    split_endpoints,
)


@click.command()
@click.option("--etcd-endpoints", metavar="URL[,URL]", default=ETCD_ENDPOINTS, show_default=True)
@click.option("--etcd-prefix", metavar="KEY", default=ETCD_PREFIX, show_default=True)
@click.option("--iface", metavar="NAME|IP", default="", help="Underlay. Default: the default route's interface.")
@click.option("--public-ip", metavar="IP", default="", help="Where peers send to. Default: the underlay's address.")
@click.option("--subnet-file", metavar="FILE", default=SUBNET_FILE, show_default=True)
@click.option("--node-name", metavar="NAME", default=None, help="Default: the host's name.")
@click.option("--cleanup", is_flag=True, help="Remove our devices, our routes and the subnet file, and exit.")
@click.option("-v", "--verbose", is_flag=True, help="Log every step.")
@click.version_option(__version__, prog_name="netagent")
def netagent(*, node_name: str | None, cleanup: bool, verbose: bool, **flags: str) -> int:
    """Lease a pod subnet for this node and connect it with those of all other nodes.

    Routes outlive the daemon: stopping or killing it moves no packet. Only --cleanup removes them.
    """
    configure(verbose=verbose)
    # Their debug lines are whole netlink messages and the states of a poller.
    for library in ("grpc", "pyroute2"):
        logging.getLogger(library).setLevel(logging.INFO)
    settings = settings_from(os.uname().nodename if node_name is None else node_name, flags)
    # Heavy imports wait until the flags are known to be good, so that --help is quick.
    from netagent import daemon  # noqa: PLC0415

    body = daemon.cleanup if cleanup else daemon.serve
    return run_daemon("netagent", lambda: body(settings))


def settings_from(node_name: str, flags: dict[str, str]) -> Settings:
    return Settings(
        node_name=parse_node_name(node_name),
        etcd_endpoints=split_endpoints(flags["etcd_endpoints"]),
        etcd_prefix=flags["etcd_prefix"],
        iface=flags["iface"],
        public_ip=parse_public_ip(flags["public_ip"]),
        subnet_file=parse_subnet_file(flags["subnet_file"]),
    )


def main() -> None:
    sys.exit(run_command(netagent))


if __name__ == "__main__":
    main()
