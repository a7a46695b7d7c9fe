"""How our programs are told where etcd is and who they are to it. Pure; every error names the flag and the value."""

from dataclasses import dataclass, field

from controlloop.goflags import Flag, FlagValues, Given


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    endpoints: tuple[str, ...]
    prefix: str
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def config_key(self) -> str:
        return f"{self.prefix.rstrip('/')}/config"


def etcd_flags(endpoints: str, prefix: str, password_variable: str) -> tuple[Flag, ...]:
    """The flags that `etcd_settings` reads, with a program's own defaults."""
    return (
        Flag("etcd-endpoints", "URL[,URL]", endpoints, "where it is; https for TLS"),
        Flag("etcd-prefix", "KEY", prefix, "below which all keys are"),
        Flag("etcd-cafile", "FILE", "", "who signed the servers' certificates; without it the system's list"),
        Flag("etcd-certfile", "FILE", "", "our certificate, read again when it is renewed"),
        Flag("etcd-keyfile", "FILE", "", "its key"),
        Flag("etcd-username", "NAME", "", "log in as this user"),
        Flag("etcd-password", "TEXT", "", f"its password; {password_variable} keeps it out of the process list"),
    )


def etcd_settings(values: FlagValues) -> EtcdSettings:
    for present, missing in (("certfile", "keyfile"), ("keyfile", "certfile"), ("username", "password")):
        if values.text(f"etcd-{present}") and not values.text(f"etcd-{missing}"):
            raise values.one(f"etcd-{present}").refused(f"needs --etcd-{missing} as well")
    return EtcdSettings(
        endpoints=split_endpoints(values.one("etcd-endpoints")),
        prefix=values.text("etcd-prefix"),
        ca_file=values.text("etcd-cafile"),
        cert_file=values.text("etcd-certfile"),
        key_file=values.text("etcd-keyfile"),
        username=values.text("etcd-username"),
        password=values.text("etcd-password"),
    )


def split_endpoints(given: Given) -> tuple[str, ...]:
    endpoints = tuple(part.strip() for part in given.text.split(",") if part.strip())
    if not endpoints:
        raise given.refused("name at least one")
    return endpoints
