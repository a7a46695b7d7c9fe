"""netagent, the overlay agent of one node."""

import os
import sys
from collections.abc import Mapping, Sequence

from controlloop import __version__
from controlloop.errors import EXIT_OPERATOR, OperatorError
from controlloop.goflags import FlagValues, render_help
from netagent.config import Settings, read_flags, settings_from
from netagent.flags import GROUPS, USAGE


def run(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit code: 2 when a flag, a variable or what it names is wrong, which one line on stderr says."""
    try:
        values = read_flags(argv, environment)
        if values.is_on("help") or values.is_on("h"):
            print(render_help(USAGE, GROUPS), end="")
            return 0
        if values.is_on("version"):
            print(f"netagent, version {__version__}")
            return 0
        return act(values, settings_from(values, environment, os.uname().nodename))
    except OperatorError as error:
        print(f"netagent: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_OPERATOR


def act(values: FlagValues, settings: Settings) -> int:
    if values.text("install-cni") or values.text("install-cni-conf"):
        return install(values.text("install-cni"), values.text("install-cni-conf"), settings)
    # Heavy imports wait until the flags are known to be good, so that --help is quick.
    from controlloop.daemon import run_daemon  # noqa: PLC0415
    from netagent import daemon  # noqa: PLC0415

    prepare_log(settings)
    body = daemon.cleanup if values.is_on("cleanup") else daemon.serve
    return run_daemon("netagent", lambda: body(settings))


def install(plugin_folder: str, path: str, settings: Settings) -> int:
    from netagent.cni.install import conflist, install_conflist, install_plugin  # noqa: PLC0415 - not for --help

    if plugin_folder:
        install_plugin(plugin_folder)
    # The plugin goes first: a runtime takes the network as usable as soon as the conflist is there.
    if path:
        install_conflist(path, conflist(settings.instance, settings.subnet_file))
    return 0


def prepare_log(settings: Settings) -> None:
    import logging  # noqa: PLC0415 - not for --help

    from controlloop.logs import Log, configure  # noqa: PLC0415

    configure(verbose=settings.debug)
    # Its debug lines are the states of a poller.
    logging.getLogger("grpc").setLevel(logging.INFO)
    for flag, value in settings.ignored.items():
        Log("netagent").debug("flag without effect", flag=f"--{flag}", value=value)


def main() -> None:
    sys.exit(run(sys.argv[1:], os.environ))


if __name__ == "__main__":
    main()
