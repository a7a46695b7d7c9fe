"""The file of --config: read at the start, and again whenever it changes."""

from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import msgspec
import yaml

from controlloop.errors import OperatorError
from controlloop.goflags import FlagValues
from controlloop.logs import Log
from controlloop.yaml_documents import documents
from proxy.command_line import Place, configured_by, settings_from
from proxy.config import Settings
from proxy.configuration import Configured, Remark, read_configuration
from proxy.sources.directory_watch import DirectoryWatch

log = Log("configuration")

RESCAN_S = 10.0
"""A file behind a symbolic link changes without a word from inotify: a ConfigMap is such a link."""


def read_settings(values: FlagValues, place: Place) -> Settings:
    """What flags and file say now. OperatorError names flag or file, field and value."""
    return settings_from(values, read_configured(values), place)


def read_configured(values: FlagValues) -> Configured:
    file = values.one("config")
    if not file.text:
        return configured_by(values)
    try:
        found = list(documents(Path(file.text).read_bytes()))
    except OSError as error:
        raise file.refused(error.strerror or "cannot be read") from error
    except ValueError as error:
        raise file.refused(str(error)) from error
    if len(found) != 1:
        raise file.refused(f"want one document, not {len(found)}")
    return read_configuration(f"--config {file.text}", found[0])


def write_configuration(configured: Configured, path: Path) -> None:
    """As YAML that --config takes. OperatorError when it cannot be written."""
    document = msgspec.to_builtins(configured.content)
    try:
        path.write_text(yaml.safe_dump(document, sort_keys=True))
    except OSError as error:
        raise OperatorError(f"--write-config-to {path}: {error.strerror}") from error
    log.info("configuration written", file=path)


def tell(remarks: Iterable[Remark]) -> None:
    for remark in remarks:
        log.warning("not done as written", name=remark.name, value=remark.value, reason=remark.reason)


async def changed_settings(values: FlagValues, place: Place, first: Settings) -> AsyncGenerator[Settings, None]:
    """Settings that differ from those before, for ever; none without --config. A file that cannot be used changes
    nothing, and is said once.
    """
    file, before, refusal = values.text("config"), first, ""
    if not file:
        return
    try:
        watch = DirectoryWatch(Path(file).parent)
    except OSError as error:
        log.warning("the file is not watched, changes wait for a restart", file=file, error=error)
        return
    try:
        while True:
            await watch.changed(RESCAN_S)
            try:
                settings = read_settings(values, place)
            except OperatorError as error:
                if str(error) != refusal:
                    log.warning("changed configuration is not used", error=error)
                refusal = str(error)
                continue
            refusal = ""
            if settings != before:
                tell(remark for remark in settings.remarks if remark not in before.remarks)
                before = settings
                yield settings
    finally:
        await watch.close()
