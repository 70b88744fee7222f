"""The hook of plugins that fetch: the half of an adapter source that runs in the pod."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pluggy import HookspecMarker

if TYPE_CHECKING:
    from kaito_core.api.fetching import Fetcher
    from kaito_core.settings import Settings

__all__ = ["API_VERSION", "PROJECT"]

PROJECT = "kaito_fetch"  #: pluggy project, and entry-point group of the fetching half of plugins
#: Version of this hook. A plugin may ask for one in the entry-point group `kaito_fetch.api`.
API_VERSION = 1

hookspec = HookspecMarker(PROJECT)


@hookspec
def kaito_fetchers(settings: Settings) -> Iterable[Fetcher]:  # type: ignore[empty-body]
    """Return the fetchers that this plugin brings. Called once, when `kaito-fetch` starts.

    Names and schemes are unique across plugins. Errors disable the plugin.

    Example:
        @fetchimpl
        def kaito_fetchers():
            return [MyFetcher()]
    """
