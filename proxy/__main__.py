"""netproxy, the service proxy of one node."""

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from controlloop import __version__
from controlloop.errors import EXIT_OPERATOR, OperatorError
from controlloop.goflags import FlagValues, parse_flags, render_help
from proxy.flags import GROUPS, PASSWORD_VARIABLE, SHOWN, USAGE


def run(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit code: 2 when a flag, a file or what it names is wrong, which one line on stderr says."""
    try:
        # No other variable counts: kube-proxy reads none, and a cluster fills the environment of its pods.
        secret = {name: text for name, text in environment.items() if name == PASSWORD_VARIABLE}
        values = parse_flags(GROUPS, argv, secret, "NETPROXY_")
        if values.is_on("help") or values.is_on("h"):
            print(render_help(USAGE, SHOWN), end="")
            return 0
        if values.is_on("version"):
            print(f"netproxy, version {__version__}")
            return 0
        return act(values, environment)
    except OperatorError as error:
        print(f"netproxy: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_OPERATOR


def act(values: FlagValues, environment: Mapping[str, str]) -> int:
    # Heavy imports wait until the flags are known to be good, so that --help is quick.
    from controlloop.daemon import run_daemon  # noqa: PLC0415
    from controlloop.kubernetes.kubeconfig import SERVICE_ACCOUNT  # noqa: PLC0415
    from controlloop.logs import configure  # noqa: PLC0415
    from proxy import daemon, leftovers  # noqa: PLC0415
    from proxy.command_line import Place, is_debug  # noqa: PLC0415
    from proxy.config_file import changed_settings, read_configured, read_settings, tell, write_configuration  # noqa: PLC0415

    in_pod = bool(environment.get("KUBERNETES_SERVICE_HOST")) and (SERVICE_ACCOUNT / "token").exists()
    place = Place(os.uname().nodename, in_pod)
    if values.is_on("cleanup"):
        configure(verbose=is_debug(values))
        return run_daemon("netproxy", leftovers.cleanup)
    settings = read_settings(values, place)
    configure(verbose=settings.debug)
    if values.text("write-config-to"):
        write_configuration(read_configured(values), Path(values.text("write-config-to")))
        return 0
    tell(settings.remarks)
    if values.is_on("init-only"):
        return run_daemon("netproxy", lambda: daemon.initialise(settings))
    return run_daemon("netproxy", lambda: daemon.serve(settings, changed_settings(values, place, settings)))


def main() -> None:
    # Until the first sync, for what is loaded and read now stays: looking for garbage in it takes 20 ms of the imports'
    # 170, and as long again as reading what is listed.
    gc.disable()
    sys.exit(run(sys.argv[1:], os.environ))


if __name__ == "__main__":
    main()
