"""Adapters behind URLs: an archive, a folder, or a file of an adapter."""

import base64
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from kaito_core.api.fetching import ADAPTER_FILES, ARCHIVES, Access, RemoteFile, is_adapter_file
from kaito_core.errors import FetchError
from kaito_core.fetch.network.rules import shown
from kaito_core.fetch.network.web_file import Refusal, web_file

__all__ = ["WebFetcher"]

_TOKEN, _USER, _PASSWORD = "token", "username", "password"  # the last two are those of Kubernetes' basic-auth Secrets


class WebFetcher:
    """Downloads from web servers."""

    name = "http"
    schemes = ("https", "http")

    def files(self, uri: str, access: Access) -> Iterable[RemoteFile]:
        """Returns the archive or the file that the URL names, or an adapter's two files in the folder that it names."""
        parts = urlsplit(uri)
        if parts.username is not None or parts.password is not None:
            raise FetchError(f"{shown(uri)} must not contain a user name or password; put them into a Secret")
        path = parts.path.rstrip("/")
        name = PurePosixPath(unquote(path)).name
        headers, refusal = _credentials(access)
        if name.endswith(ARCHIVES):
            return (web_file(access.client, uri, name, headers=headers, refusal=refusal, kind="archive"),)
        if is_adapter_file(name):
            return (web_file(access.client, uri, name, headers=headers, refusal=refusal),)
        if PurePosixPath(name).suffix in (".bin", ".pt", ".pth", ".safetensors", ".json"):
            raise FetchError(
                f"{shown(uri)}: '{name}' is not a file of an adapter, known: {', '.join(ADAPTER_FILES)}, or an archive"
            )
        return [
            web_file(
                access.client,
                parts._replace(path=f"{path}/{file}").geturl(),
                file,
                headers=headers,
                refusal=refusal,
            )
            for file in ADAPTER_FILES
        ]


def _credentials(access: Access) -> tuple[Mapping[str, str], Refusal]:
    keys = (_TOKEN, _USER, _PASSWORD)
    headers = {}
    # Variables of such common names are nobody's credentials for a web server: only a Secret's keys are.
    secret = access.secret if "KAITO_SECRET" in access.environ else (lambda key: "")
    if token := secret(_TOKEN):
        headers = {"Authorization": f"Bearer {token}"}
    elif user := secret(_USER):
        pair = f"{user}:{secret(_PASSWORD)}".encode()
        headers = {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}

    def refusal(status: int) -> str:
        if status not in (401, 403):
            return ""
        return f"responded with {status} to {access.credentials(*keys)}"

    return headers, refusal
