"""AdapterManager: loads, replaces and unloads adapters as the configuration says, while requests run.

What requests get meanwhile is the `catalog`'s.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kaito_core.api.serving import ServedAdapter, ServingConfig
from kaito_runtime.adapters.catalog import AdapterState, AdapterStatus, Catalog
from kaito_runtime.adapters.sources import Source, Sources
from kaito_runtime.config import ConfigError, ConfigFile
from kaito_runtime.engine.protocol import Engine
from kaito_runtime.errors import AdapterLoadError, RequestError, is_out_of_memory, one_line
from kaito_runtime.formats.chat_template import read_chat_template
from kaito_runtime.lora.records import AdapterVersion

__all__ = ["AdapterManager"]

log = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 300.0  # between two rounds that fail
_Content = tuple[str, str | None, str | None]
_LOOK_SECONDS = 1.0  # between two looks at the folders
_PEEK_SECONDS = 0.2  # between two looks at whether the configuration has changed, which cost a read of a small file
# Fields of the model that need a new process.
_FIXED = ("recipe", "dtype", "context_length", "quantization", "adapter_memory", "max_adapter_rank")


class AdapterManager:
    """Keeps what is served as an immutable `Catalog`, which is replaced as a whole.

    Args:
        config: What to serve at the start.
        adapters_dir: Folder with one folder per adapter; None: adapters have absolute paths.
        config_file: Applied again when it changes; None: the configuration stays.
        clock: Returns seconds that only grow.

    Attributes:
        catalog: What is served now.
        config_error: Why the configuration file is not applied, or not as a whole; "" where it is.
        settled: Whether every adapter of the start was loaded or has failed.
        load_seconds: Time that loading took, by adapter.
    """

    def __init__(
        self,
        engine: Engine,
        config: ServingConfig,
        *,
        adapters_dir: Path | None = None,
        config_file: ConfigFile | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._changing = asyncio.Lock()  # the watch and admins, one after the other
        self._config_file = config_file
        self._sources = Sources(adapters_dir, clock)
        self._origins: dict[AdapterVersion, tuple[_Content, Source]] = {}  # of versions that are not retired
        self.adapters_dir = adapters_dir
        self.catalog = Catalog(config)
        self.config_error = ""
        self.settled = False
        self.load_seconds: dict[str, float] = {}
        self._templates: dict[AdapterVersion, str] = {}

    def chat_templates(self, versions: Iterable[AdapterVersion]) -> frozenset[str]:
        """Returns the chat templates that adapters bring."""
        return frozenset(self._templates[version] for version in versions if version in self._templates)

    async def refresh(self) -> None:
        """Reads the configuration and looks at the folders once, and applies what has changed."""
        async with self._changing:
            self._read_config()
            await self._load_due()
            self.settled = True

    async def watch(self, interval_seconds: float = _LOOK_SECONDS) -> None:
        """Refreshes forever. Files are polled, since Kubernetes replaces links above them."""
        pause_seconds = interval_seconds
        while True:
            await self._pause(pause_seconds)
            try:
                await self.refresh()
            except Exception:  # one bad round must not end the watch
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
                log.exception("the configuration could not be applied; next try in %g s", pause_seconds)
            else:
                pause_seconds = interval_seconds

    async def _pause(self, seconds: float) -> None:
        """Waits, at most until the configuration changes: an edit does not wait for the next look at the folders."""
        for _ in range(math.ceil(seconds / _PEEK_SECONDS)):
            await asyncio.sleep(_PEEK_SECONDS)
            if self._config_file is not None and self._config_file.has_changed():
                return

    # Adapters that an admin loads by request, beside those of the configuration.

    def check_guest(self, name: str, *, replaces: bool) -> None:
        """Checks that an admin may load an adapter under a name.

        Raises:
            RequestError: The configuration has the name (409), or a guest has it and is not to be replaced (400).
        """
        taken = next((card for card in self.catalog.cards if card.id == name), None)
        if taken is None:
            return
        if name not in self.catalog.guests:
            what = "adapter" if name in self.catalog.declared else "model id"
            message = f"lora_name: '{name}' is the configuration's {what}: change it there, or choose another name"
            raise RequestError(message, status=409, code="name_taken", param="lora_name")
        if not replaces:
            message = f"lora_name: adapter '{name}' is loaded already: unload it first, or set load_inplace"
            raise RequestError(message, code="adapter_already_loaded", param="lora_name")

    async def load_guest(self, name: str, folder: Path, *, replaces: bool) -> None:
        """Loads an adapter by request. It stays until it is unloaded or the process ends.

        Raises:
            RequestError: As `check_guest`, or the adapter cannot be applied (400), or not now (503).
        """
        async with self._changing:
            self.check_guest(name, replaces=replaces)
            try:
                version = await self._load(name, Source(folder))
            except AdapterLoadError as error:  # the adapter that was loaded before stays
                code = 503 if error.transient else 400
                raise RequestError(str(error), status=code, code="adapter_refused", param="lora_path") from error
            guests = dict.fromkeys((*self.catalog.guests, name))
            self._change(guests=tuple(guests), statuses={**self.catalog.statuses, name: _ready(version)})

    async def unload_guest(self, name: str) -> None:
        """Unloads an adapter that was loaded by request; running requests that have it keep it to their end.

        Raises:
            RequestError: The configuration has it (409), or it is not loaded (404).
        """
        async with self._changing:
            if name not in self.catalog.guests:
                self.check_guest(name, replaces=False)
                known = ", ".join(self.catalog.guests) or "none"
                message = f"lora_name: unknown adapter '{name}', loaded by request: {known}"
                raise RequestError(message, status=404, code="adapter_not_found", param="lora_name")
            self._dismiss(name)

    def _dismiss(self, name: str) -> None:
        guests = tuple(guest for guest in self.catalog.guests if guest != name)
        statuses = {other: status for other, status in self.catalog.statuses.items() if other != name}
        self._change(guests=guests, statuses=statuses)
        self.load_seconds.pop(name, None)

    # The configuration.

    def _read_config(self) -> None:
        if self._config_file is None:
            return
        try:
            config = self._config_file.read()
        except ConfigError as error:
            self._report(str(error))
            return
        if config is None:
            return
        now = self.catalog.config.model
        self._report(
            "; ".join(
                f"model.{name} takes effect with a new pod"
                for name in _FIXED
                if getattr(now, name) != getattr(config.model, name)
            )
        )
        if config != self.catalog.config:
            log.info("applying the configuration of generation %d", config.generation)
        ids = {card.id for card in Catalog(config).cards}
        if taken := [guest for guest in self.catalog.guests if guest in ids]:
            log.warning("the configuration has %s now: what was loaded by request is unloaded", ", ".join(taken))
            for guest in taken:  # before the configuration's own is loaded: the name must not mean the old adapter
                self._dismiss(guest)
        # What a running process cannot change keeps its value, so that nothing claims otherwise.
        model = now.model_copy(update={"name": config.model.name})
        self._change(config=config.model_copy(update={"model": model}), statuses=self._statuses_under(config))

    def _statuses_under(self, config: ServingConfig) -> dict[str, AdapterStatus]:
        """Returns the statuses under a new configuration: a replaced adapter is not ready from this moment on."""
        statuses = {name: self.catalog.statuses[name] for name in self.catalog.guests}
        before = {adapter.name: _content(adapter) for adapter in self.catalog.config.adapters}
        after = {adapter.name: _content(adapter) for adapter in config.adapters}
        for name in before.keys() | after.keys():
            if before.get(name) == after.get(name):
                if name in self.catalog.statuses:
                    statuses[name] = self.catalog.statuses[name]
                continue
            self._sources.forget(name)
            for version, (content, source) in self._origins.items():  # an edit that is taken back loads nothing again
                if content == after.get(name):
                    statuses[name] = _ready(version)
                    self._sources.succeeded(name, source)
            if name in before and name in after:
                statuses.setdefault(name, AdapterStatus(message="is being replaced"))
        return statuses

    def _report(self, error: str) -> None:
        if error and error != self.config_error:
            log.error("%s; the last valid configuration stays", error)
        self.config_error = error

    # Loading.

    async def _load_due(self) -> None:
        """Loads what is due, one after the other. The configuration may change meanwhile; the newest one counts."""
        seen = set()
        while due := [each for each in self.catalog.config.adapters if _content(each) not in seen]:
            seen.add(_content(due[0]))
            await self._load_if_due(due[0])

    async def _load_if_due(self, adapter: ServedAdapter) -> None:
        name = adapter.name
        source = await asyncio.to_thread(self._sources.find, adapter)
        if not self._sources.is_due(name, source):
            return
        if self._sources.is_arriving(name, source, at_start=not self.settled):
            self._put(name, AdapterStatus(message=f"waiting for the files in {source.path}"))
            return
        try:
            version = await self._load_and_look(name, source)
        except AdapterLoadError as error:
            if self._wants(adapter):
                self._put(name, AdapterStatus(AdapterState.FAILED, message=error.reason))
                self._sources.failed(name, source, error)
            return
        if self._wants(adapter):
            self._origins[version] = _content(adapter), source
            self._put(name, _ready(version))
            self._sources.succeeded(name, source)
        else:
            self._engine.retire_adapter(version)

    def _wants(self, adapter: ServedAdapter) -> bool:
        """Returns whether the newest configuration still has an adapter, with the same content."""
        return any(_content(each) == _content(adapter) for each in self.catalog.config.adapters)

    async def _load_and_look(self, name: str, source: Source) -> AdapterVersion:
        """Loads an adapter, and applies what changes in the configuration meanwhile: an edit waits for no load.

        Raises:
            AdapterLoadError: As `_load`.
        """
        loading = asyncio.ensure_future(self._load(name, source))
        try:
            while not (await asyncio.wait([loading], timeout=_LOOK_SECONDS))[0]:
                self._read_config()
            return loading.result()
        finally:
            loading.cancel()

    async def _load(self, name: str, source: Source) -> AdapterVersion:
        """Loads an adapter.

        Raises:
            AdapterLoadError: It could not be loaded, for whatever reason.
        """
        started = self._clock()
        try:
            template = await asyncio.to_thread(read_chat_template, source.path, name=name)
            version = await self._engine.load_adapter(name, source.path, source.digest)
        except AdapterLoadError as error:
            log.error("%s", error)
            raise
        except Exception as error:  # of whatever kind: the other adapters and the base model are served
            reason = f"there is not enough memory: {one_line(error)}" if is_out_of_memory(error) else one_line(error)
            log.exception("adapter '%s' cannot be loaded: %s", name, reason)
            raise AdapterLoadError(name, reason, transient=True) from error
        if template:
            self._templates[version] = template
        self.load_seconds[name] = self._clock() - started
        log.info("adapter '%s' is loaded (%s)", name, version.digest)
        return version

    def _put(self, name: str, status: AdapterStatus) -> None:
        self._change(statuses={**self.catalog.statuses, name: status})

    def _change(self, **changes: Any) -> None:
        """Replaces what new requests get, and unloads what none can get any more; running requests keep theirs."""
        before = self.catalog.versions
        self.catalog = self.catalog.changed(**changes)
        for version in before - self.catalog.versions:
            self._origins.pop(version, None)
            self._templates.pop(version, None)
            self._engine.retire_adapter(version)


def _content(adapter: ServedAdapter) -> _Content:
    """Returns what an adapter is loaded from; all but its strength."""
    return adapter.name, adapter.path, adapter.digest


def _ready(version: AdapterVersion) -> AdapterStatus:
    return AdapterStatus(AdapterState.READY, version)
