"""netproxy, the service proxy of one node."""

import os
import sys

import click

from controlloop import __version__
from controlloop.daemon import run_daemon
from controlloop.flags import run_command
from controlloop.logs import configure
from proxy.config import ProxyMode, Settings, SourceKind, choose_source, parse_cluster_cidrs, split_endpoints
from proxy.frontends import Balance


@click.command()
@click.option("--source", type=click.Choice([kind.value for kind in SourceKind]), help="Where Services come from.")
@click.option("--etcd-endpoints", metavar="URL[,URL]", default="http://127.0.0.1:2379", show_default=True)
@click.option("--etcd-prefix", metavar="KEY", default="/nodenet", show_default=True)
@click.option("--manifests", metavar="DIR", default="", help="Directory of YAML or JSON manifests; it is watched.")
@click.option(
    "--proxy-mode", type=click.Choice([mode.value for mode in ProxyMode]), default="iptables", show_default=True
)
@click.option(
    "--cluster-cidr", metavar="CIDR[,CIDR]", default="", help="Pod network: callers outside it are masqueraded."
)
@click.option("--hostname-override", metavar="NAME", default="", help="This node's name. Default: the host's name.")
@click.option(
    "--balance",
    type=click.Choice([balance.value for balance in Balance]),
    default="random",
    show_default=True,
    help="For Services without the annotation nodenet.io/balance.",
)
@click.option("--cleanup", is_flag=True, help="Remove all rules of ours, in every mode, and exit.")
@click.option("-v", "--verbose", is_flag=True, help="Log every step.")
@click.version_option(__version__, prog_name="netproxy")
def netproxy(*, cleanup: bool, verbose: bool, **flags: str) -> int:
    """Program load balancing for the cluster's Services on this node, and keep it right.

    Rules outlive the daemon: stopping or killing it moves no packet. Only --cleanup removes them.
    """
    configure(verbose=verbose)
    settings = settings_from(flags)
    # Heavy imports wait until the flags are known to be good, so that --help is quick.
    from proxy import daemon  # noqa: PLC0415

    body = daemon.cleanup if cleanup else lambda: daemon.serve(settings)
    return run_daemon("netproxy", body)


def settings_from(flags: dict[str, str]) -> Settings:
    return Settings(
        source=choose_source(flags["source"], flags["manifests"]),
        etcd_endpoints=split_endpoints(flags["etcd_endpoints"]),
        etcd_prefix=flags["etcd_prefix"].rstrip("/"),
        manifests=flags["manifests"],
        mode=ProxyMode(flags["proxy_mode"]),
        cluster_cidrs=parse_cluster_cidrs(flags["cluster_cidr"]),
        # As the kubelet names a node: trimmed, in lower case.
        node_name=(flags["hostname_override"] or os.uname().nodename).strip().lower(),
        balance=Balance(flags["balance"]),
    )


def main() -> None:
    sys.exit(run_command(netproxy))


if __name__ == "__main__":
    main()
