"""Residents: keeps the adapters in memory what the configuration says, while requests run. Nothing here restarts."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kaito_core.api.serving import ServedAdapter, ServingConfig
from kaito_runtime.adapters.catalog import AdapterState, Catalog, ServedVersion
from kaito_runtime.config import ConfigError, parse_config
from kaito_runtime.engine.protocol import Engine
from kaito_runtime.errors import AdapterLoadError, RequestError, is_out_of_memory, one_line

__all__ = ["ADAPTER_FILES", "Residents"]

log = logging.getLogger(__name__)

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 10.0, 300.0  # each pause between two tries is twice the one before


@dataclass(frozen=True, slots=True)
class _Source:
    """What an adapter was loaded from: another value means another version.

    Attributes:
        files: (name, size, modification time) of each file that is there.
    """

    path: Path
    digest: str | None
    files: tuple[tuple[str, int, int], ...]

    @property
    def complete(self) -> bool:
        return any(name == ADAPTER_FILES[0] for name, _, _ in self.files)


@dataclass(frozen=True, slots=True)
class _Retry:
    """When a failed load is tried again although the files are the same."""

    at_seconds: float
    pause_seconds: float


class Residents:
    """What is applied now, as an immutable `Catalog` that is replaced as a whole.

    Args:
        config: What to serve at first.
        adapters_dir: Folder with one folder per adapter.
        config_file: Re-read when its content changes; None for a configuration that stays.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        engine: Engine,
        config: ServingConfig,
        *,
        adapters_dir: Path | None = None,
        config_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._changing = asyncio.Lock()  # the watch and admins, one after the other
        self.adapters_dir = adapters_dir
        self._config_file = config_file
        self._content: bytes | None = None
        self._sources: dict[str, _Source] = {}  # that the states come from
        self._seen: dict[str, _Source] = {}  # in the round before
        self._retries: dict[str, _Retry] = {}
        self.catalog = Catalog(config)
        self.config_error = ""
        self.settled = False
        self.load_seconds: dict[str, float] = {}

    async def refresh(self) -> None:
        """Reads the configuration and the folders once, and applies what has changed."""
        async with self._changing:
            self._read_config()
            await self._apply()
            self.settled = True

    def check_guest(self, name: str, *, replaces: bool) -> None:
        """Checks that an admin may load an adapter under a name.

        Raises:
            RequestError: The configuration has the name (409), or a guest has it and is not to be replaced (400).
        """
        taken = next((card for card in self.catalog.cards() if card.id == name), None)
        if taken is None:
            return
        if name not in self.catalog.guests:
            what = "adapter" if name in self.catalog.declared else "model id"
            message = f"lora_name: '{name}' is the configuration's {what}: change it there, or choose another name"
            raise RequestError(message, status=409, code="name_taken", param="lora_name")
        if not replaces:
            message = f"the adapter '{name}' has been loaded already: unload it first, or set load_inplace"
            raise RequestError(message, code="adapter_already_loaded", param="lora_name")

    async def load_guest(self, name: str, folder: Path, *, replaces: bool) -> None:
        """Loads an adapter beside those of the configuration. It stays until it is unloaded or the process ends.

        Raises:
            RequestError: As `check_guest`, or the adapter cannot be applied (400), or not now (503).
        """
        async with self._changing:
            self.check_guest(name, replaces=replaces)
            try:
                served = await self._load(name, _Source(folder, None, ()))
            except AdapterLoadError as error:  # what was loaded before stays
                status = 503 if error.transient else 400
                raise RequestError(str(error), status=status, code="adapter_refused", param="lora_path") from error
            guests = dict.fromkeys((*self.catalog.guests, name))
            self.catalog = replace(self.catalog, guests=tuple(guests))
            self._put(name, served)

    async def unload_guest(self, name: str) -> None:
        """Takes away an adapter that an admin loaded; requests that have it finish with it.

        Raises:
            RequestError: The configuration has it (409), or nobody does (404).
        """
        async with self._changing:
            if name not in self.catalog.guests:
                self.check_guest(name, replaces=False)
                known = ", ".join(self.catalog.guests) or "none"
                message = f"the adapter '{name}' cannot be found, loaded by request: {known}"
                raise RequestError(message, status=404, code="adapter_not_found", param="lora_name")
            self._dismiss(name)

    def _dismiss(self, name: str) -> None:
        self.catalog = replace(self.catalog, guests=tuple(guest for guest in self.catalog.guests if guest != name))
        self._put(name, None)
        self.load_seconds.pop(name, None)

    async def watch(self, interval_seconds: float = 1.0) -> None:
        """Refreshes forever. A file is polled, since Kubernetes swaps links around it."""
        pause_seconds = interval_seconds
        while True:
            await asyncio.sleep(pause_seconds)
            try:
                await self.refresh()
            except Exception:  # one bad round must not end the watch
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
                log.exception("the configuration could not be applied; trying again in %g s", pause_seconds)
            else:
                pause_seconds = interval_seconds

    def _read_config(self) -> None:
        if self._config_file is None:
            return
        try:
            content = self._config_file.read_bytes()
        except OSError as error:
            self._content = None
            self._complain(f"{self._config_file}: {error.strerror or error}")
            return
        if content == self._content:
            return
        self._content = content
        try:
            config = parse_config(content, str(self._config_file))
        except ConfigError as error:
            self._complain(str(error))
            return
        self._complain(_needs_restart(self.catalog.config, config))
        # What the running process cannot change stays what it is, so that answers never claim otherwise.
        model = self.catalog.config.model.model_copy(update={"name": config.model.name})
        if config != self.catalog.config:
            log.info("applying the configuration of generation %d", config.generation)
        guests = self.catalog.guests
        self.catalog = Catalog(config.model_copy(update={"model": model}), self._still_true(config), guests)
        ids = {card.id for card in Catalog(config).cards()}
        if taken := [guest for guest in guests if guest in ids]:
            log.warning("the configuration has %s now, which replaces what was loaded by request", ", ".join(taken))
            for guest in taken:  # not served until the configuration's own is there
                self._dismiss(guest)

    def _still_true(self, config: ServingConfig) -> Mapping[str, ServedVersion]:
        """Returns the states under a new configuration: nobody may read that a replaced adapter is ready already."""
        before = {adapter.name: adapter for adapter in self.catalog.config.adapters}
        versions = dict(self.catalog.versions)
        for adapter in config.adapters:
            old = before.get(adapter.name)
            if old is not None and (old.path, old.digest) != (adapter.path, adapter.digest):
                self._sources.pop(adapter.name, None)
                versions[adapter.name] = self._loading(adapter.name, "is being replaced")
        return versions

    def _loading(self, name: str, message: str) -> ServedVersion:
        return ServedVersion(AdapterState.LOADING, self.catalog.status(name).version, message)

    def _complain(self, message: str) -> None:
        if message and message != self.config_error:
            log.error("%s; what was applied before stays", message)
        self.config_error = message

    async def _apply(self) -> None:
        wanted = {adapter.name: adapter for adapter in self.catalog.config.adapters}
        for name in [name for name in self.catalog.versions if name not in wanted and name not in self.catalog.guests]:
            self._put(name, None)
            self._sources.pop(name, None)
            self._retries.pop(name, None)
        for name, adapter in wanted.items():
            source = await asyncio.to_thread(self._source, adapter)
            if source != self._sources.get(name):
                self._retries.pop(name, None)
            elif name not in self._retries or self._clock() < self._retries[name].at_seconds:
                continue
            if self._is_arriving(name, source):
                self._put(name, self._loading(name, f"waiting for the files in {source.path}"))
                continue
            try:
                self._put(name, await self._load(name, source))
                self._retries.pop(name, None)
            except AdapterLoadError as error:
                self._put(name, ServedVersion(AdapterState.FAILED, message=error.reason))
                self._plan_retry(name, error)
            self._sources[name] = source

    def _is_arriving(self, name: str, source: _Source) -> bool:
        """Whether files may still be copied: they are not there, or others than a round ago. Not so at the start."""
        seen = self._seen.get(name)
        self._seen[name] = source
        return not source.complete or (self.settled and seen != source)

    def _plan_retry(self, name: str, error: AdapterLoadError) -> None:
        before = self._retries.pop(name, None)
        if not error.transient:
            return
        pause_seconds = _FIRST_PAUSE_SECONDS if before is None else before.pause_seconds * 2
        pause_seconds = min(pause_seconds, _LONGEST_PAUSE_SECONDS)
        self._retries[name] = _Retry(self._clock() + pause_seconds, pause_seconds)
        log.info("adapter '%s' is tried again in %g s", name, pause_seconds)

    async def _load(self, name: str, source: _Source) -> ServedVersion:
        """Loads an adapter.

        Raises:
            AdapterLoadError: It could not be loaded, for whatever reason.
        """
        started = self._clock()
        try:
            version = await self._engine.load_adapter(name, source.path, source.digest)
        except AdapterLoadError as error:
            log.error("%s", error)
            raise
        except Exception as error:  # whatever it is, the other adapters and the base model are served
            reason = f"there is not enough memory: {one_line(error)}" if is_out_of_memory(error) else one_line(error)
            log.exception("adapter '%s' cannot be loaded: %s", name, reason)
            raise AdapterLoadError(name, reason, transient=True) from error
        self.load_seconds[name] = self._clock() - started
        log.info("adapter '%s' is loaded (%s)", name, version.digest)
        return ServedVersion(AdapterState.READY, version)

    def _put(self, name: str, served: ServedVersion | None) -> None:
        """Replaces what requests from now on get; those that run hold their own version."""
        versions = dict(self.catalog.versions)
        old = versions.pop(name, None)
        if served is not None:
            versions[name] = served
        self.catalog = replace(self.catalog, versions=versions)
        if old is not None and old.version is not None and (served is None or served.version is not old.version):
            self._engine.retire_adapter(old.version)

    def _source(self, adapter: ServedAdapter) -> _Source:
        folder = (self.adapters_dir or Path()) / (adapter.path or adapter.name)  # an absolute path stands alone
        return _Source(folder, adapter.digest, tuple(_stamps(folder)))

    @property
    def states(self) -> Mapping[str, ServedVersion]:
        """What became of each adapter of the configuration."""
        return {adapter.name: self.catalog.status(adapter.name) for adapter in self.catalog.config.adapters}


def _stamps(folder: Path) -> list[tuple[str, int, int]]:
    found = []
    for name in ADAPTER_FILES:
        try:
            status = (folder / name).stat()
        except OSError:
            continue
        found.append((name, status.st_size, status.st_mtime_ns))
    return found


def _needs_restart(now: ServingConfig, wanted: ServingConfig) -> str:
    """Returns which changes a running process cannot follow, or ""."""
    fields = [
        name
        for name in ("recipe", "dtype", "context_length")
        if getattr(now.model, name) != getattr(wanted.model, name)
    ]
    return "".join(f"model.{name} takes effect with a new pod; " for name in fields).removesuffix("; ")
