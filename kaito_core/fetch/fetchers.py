"""The installed fetchers by scheme: loaded as the operator loads its plugins, so that a broken one stops no other."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pluggy
from importlib_metadata import EntryPoint

from kaito_core import fetchimpl
from kaito_core.api.fetching import Fetcher
from kaito_core.errors import FetchError, known_names
from kaito_core.fetch import hookspecs
from kaito_core.fetch.sources.folder import FolderFetcher
from kaito_core.fetch.sources.hub import HubFetcher
from kaito_core.fetch.sources.image import ImageFetcher
from kaito_core.fetch.sources.web import WebFetcher
from kaito_core.plugins.candidates import find_candidates
from kaito_core.plugins.info import PluginInfo
from kaito_core.plugins.loader import BUILTIN, PluginLoader, checked
from kaito_core.plugins.project import HookProject
from kaito_core.settings import Settings

__all__ = ["FETCH", "Fetchers"]

FETCH = HookProject(hookspecs.PROJECT, hookspecs, hookspecs.API_VERSION, "kaito_core.fetchimpl")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Records:
    by_scheme: Mapping[str, Fetcher]
    fetchers: tuple[Fetcher, ...]

    def names(self) -> list[tuple[str, str]]:
        return [
            *(("fetcher", fetcher.name) for fetcher in self.fetchers),
            *(("adapter scheme", scheme) for scheme in self.by_scheme),
        ]


class _Builtin:
    """What kaito-core brings itself."""

    @fetchimpl
    def kaito_fetchers(self) -> Iterable[Fetcher]:
        return (WebFetcher(), HubFetcher(), FolderFetcher(), ImageFetcher())


class Fetchers:
    """The fetchers that work, and the plugins that were looked at.

    Args:
        settings: Which plugins are allowed, and which schemes belong to which source.
        entries: Entry points to read instead of those of the installed distributions.

    Attributes:
        plugins: Plugins with a fetching half, working or not.
    """

    def __init__(self, settings: Settings, entries: Iterable[EntryPoint] | None = None) -> None:
        self._settings = settings
        loader = PluginLoader(FETCH, self._collect, allow=settings.plugins_allow, deny=settings.plugins_deny)
        found = [loader.register(_Builtin(), BUILTIN)]
        found += filter(None, map(loader.load, find_candidates(FETCH, entries=entries)))
        self._by_scheme = {scheme: fetcher for records in found for scheme, fetcher in records.by_scheme.items()}
        self.plugins: tuple[PluginInfo, ...] = tuple(loader.infos)
        for info in self.plugins:
            if info.state == "failed":
                _log.warning("the fetchers of %s are left out: %s", info, info.error)

    @property
    def by_scheme(self) -> Mapping[str, Fetcher]:
        """Fetchers by scheme."""
        return dict(self._by_scheme)

    def of(self, uri: str) -> Fetcher:
        """Returns the fetcher of a URI, or of the path of a folder.

        Raises:
            FetchError: No plugin reads its scheme; the known ones are listed.
        """
        scheme = uri.partition(":")[0].lower() if ":" in uri.partition("/")[0] else "file"
        if scheme in self._by_scheme:
            return self._by_scheme[scheme]
        broken = "".join(
            f"; plugin '{info.name}' is left out: {info.error}" for info in self.plugins if info.state == "failed"
        )
        owner = self._settings.source_of(scheme)
        taken = f"KAITO_SOURCES gives it to the source '{owner}', which is not installed; " if owner else ""
        raise FetchError(f"unknown scheme '{scheme}': {taken}{known_names(self._by_scheme, scheme)}{broken}")

    def _collect(self, hooks: pluggy.HookRelay) -> _Records:
        hook = "kaito_fetchers"
        answers = hooks.kaito_fetchers(settings=self._settings)
        fetchers = tuple(fetcher for answer in answers for fetcher in checked(hook, answer, Fetcher))
        by_scheme: dict[str, Fetcher] = {}
        for fetcher in fetchers:
            for scheme in fetcher.schemes:
                if scheme in by_scheme:
                    raise TypeError(f"{hook}: two fetchers of one plugin read the scheme '{scheme}'")
                if self._settings.source_of(scheme) in ("", fetcher.name):
                    by_scheme[scheme] = fetcher
        return _Records(by_scheme, fetchers)
