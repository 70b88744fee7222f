"""What a fetch may use: its credentials and the network. Nothing here prints a secret."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import httpx

from kaito_core.api.fetching import SECRET_PREFIX, SECRET_VARIABLE
from kaito_core.fetch.network.rules import Resolver, Rules, resolve_host
from kaito_core.fetch.network.transport import fetch_client
from kaito_core.settings import Settings

__all__ = ["ProcessAccess", "rules_of"]


def rules_of(settings: Settings, resolver: Resolver = resolve_host) -> Rules:
    """Returns what the settings allow on the network."""
    return Rules(settings.fetch_http, settings.fetch_hosts, settings.fetch_private_hosts, resolver)


class ProcessAccess:
    """The access of one process, for the fetch of one adapter.

    Args:
        environ: The process's environment, with the keys of the adapter's Secret.
        rules: What is allowed on the network.
    """

    def __init__(self, environ: Mapping[str, str], rules: Rules) -> None:
        self.environ = environ
        self._rules = rules
        self._secret = environ.get(SECRET_VARIABLE, "")

    @cached_property
    def client(self) -> httpx.Client:
        """See `Access`."""
        return fetch_client(self._rules)

    def secret(self, key: str) -> str:
        """See `Access`."""
        return self.environ.get(f"{SECRET_PREFIX}{key}" if self._secret else key, "")

    def credentials(self, *keys: str) -> str:
        """See `Access`."""
        where = f"of Secret '{self._secret}'" if self._secret else "of the environment"
        given = [key for key in keys if self.secret(key)]
        if given:
            return f"the key{'s' * (len(given) > 1)} {_listed(given)} {where}"
        hint = "" if self._secret else "; name a Secret in source.secretName"
        return f"no credentials: there is no key {' or '.join(keys)} {where}{hint}"

    def check_url(self, url: str) -> None:
        """See `Access`."""
        parts = self._rules.check_url(url)
        self._rules.addresses(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))


def _listed(names: Sequence[str]) -> str:
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]
