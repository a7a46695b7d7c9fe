"""A real etcd for the demo, tests and benchmarks: one member, in a directory and at addresses that the caller names."""

import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from controlloop.command import clean_environment, find

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
MEMBER = "lab"

# One member elects itself: with the usual second of election time it would be the slowest part of a test.
TUNING = ("--heartbeat-interval=20", "--election-timeout=200", "--logger=zap", "--log-outputs=stderr")


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Files of a server that speaks TLS, and of the client that asks for its health."""

    ca: Path
    certificate: Path
    key: Path
    client_certificate: Path
    client_key: Path
    wants_client: bool = True
    """Whether a client must show a certificate."""

    @property
    def server_flags(self) -> list[str]:
        client = ["--client-cert-auth", f"--trusted-ca-file={self.ca}"] if self.wants_client else []
        return [f"--cert-file={self.certificate}", f"--key-file={self.key}", *client]

    @property
    def client_flags(self) -> list[str]:
        return [f"--cacert={self.ca}", f"--cert={self.client_certificate}", f"--key={self.client_key}"]


def etcd_argv(data_dir: Path, *, client_url: str, peer_url: str) -> list[str]:
    """How to run the server; it logs to stderr."""
    return [
        find("etcd"),
        f"--name={MEMBER}",
        f"--data-dir={data_dir / 'data'}",
        f"--listen-client-urls={client_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster={MEMBER}={peer_url}",
        *TUNING,
    ]


def health_argv(client_url: str, flags: Sequence[str] = ()) -> list[str]:
    """How to ask whether it answers. It waits up to a second for a connection, so asking again needs no pause."""
    limits = ("--dial-timeout=1s", "--command-timeout=1s")
    return [find("etcdctl"), f"--endpoints={client_url}", *flags, *limits, "endpoint", "health"]


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody used a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EtcdServer:
    """Start and stop one etcd. Its store and its log `etcd.log` are in `data_dir`; a restart finds the same keys."""

    def __init__(
        self,
        data_dir: Path,
        *,
        client_url: str,
        peer_url: str,
        tls: ServerTls | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.client_url = client_url
        self.client_flags = tls.client_flags if tls else []
        """How etcdctl gets in; a test that enables users adds one."""
        server_flags = tls.server_flags if tls else []
        self._argv = [*etcd_argv(data_dir, client_url=client_url, peer_url=peer_url), *server_flags, *options]
        self._log_path = data_dir / "etcd.log"
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def on_this_machine(cls, data_dir: Path, *, tls: ServerTls | None = None, options: Sequence[str] = ()) -> Self:
        """A server that only this machine reaches, at ports nobody uses."""
        client_url = f"{'https' if tls else 'http'}://127.0.0.1:{free_port()}"
        peer_url = f"http://127.0.0.1:{free_port()}"
        return cls(data_dir, client_url=client_url, peer_url=peer_url, tls=tls, options=options)

    def start(self) -> None:
        """Return when it answers. RuntimeError, with the end of its log, when it does not within a minute."""
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        # A clean environment: etcd reads settings from ETCD_* too, and those of the caller are not meant for it.
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(self._argv, stdout=log, stderr=log, env=clean_environment())
        try:
            self._wait_until_healthy(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Return when the process is gone; a second call does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def etcdctl(self, *arguments: str) -> str:
        """Run etcdctl against this server; gives back what it prints."""
        argv = [find("etcdctl"), f"--endpoints={self.client_url}", *self.client_flags, *arguments]
        return subprocess.run(argv, env=clean_environment(), check=True, capture_output=True, text=True).stdout

    def _wait_until_healthy(self, process: subprocess.Popen[bytes]) -> None:
        ask, deadline = health_argv(self.client_url, self.client_flags), time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and process.poll() is None:
            if subprocess.run(ask, env=clean_environment(), check=False, capture_output=True).returncode == 0:
                return
        raise RuntimeError(f"etcd at {self.client_url} did not start:\n{self._log_end()}")

    def _log_end(self) -> str:
        return "\n".join(self._log_path.read_text(errors="replace").splitlines()[-5:])
