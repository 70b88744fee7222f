"""Adapters on the Hugging Face hub, or on a mirror with its API: HF_ENDPOINT names one.

The hub's own client is not used: its connections would be made without our checks, and it brings torch's ecosystem.
Source: https://huggingface.co/docs/hub/api
"""

import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from kaito_core.api.fetching import Access, RemoteFile, is_adapter_file
from kaito_core.errors import FetchError
from kaito_core.fetch.network.web_file import get, web_file

__all__ = ["HubFetcher"]

_PART = r"[A-Za-z0-9](?:[\w.-]*\w)?"
_REFERENCE = re.compile(
    rf"hf://(?P<repo>{_PART}/{_PART})(?:@(?P<revision>{_PART}))?(?P<folder>(?:/{_PART})*)/?", re.ASCII
)
_TOKEN = "HF_TOKEN"
_LONGEST_LISTING = 64 << 20


class HubFetcher:
    """Downloads from the hub, at the commit that a revision means at that moment."""

    name = "hf"
    schemes = ("hf",)

    def files(self, uri: str, access: Access) -> Iterable[RemoteFile]:
        """Returns the files of the repository, or of the folder in it."""
        match = _REFERENCE.fullmatch(uri)
        if match is None:
            raise FetchError(f"{uri}: must be hf://owner/name[@revision][/folder]")
        if access.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise FetchError(f"{uri}: HF_HUB_OFFLINE is set, so that the hub is not asked")
        repo, folder = match["repo"], match["folder"].strip("/")
        endpoint = (access.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
        token = access.secret(_TOKEN) or access.environ.get(_TOKEN, "")
        headers = {"Authorization": f"Bearer {token}"} if token else {}

        def refusal(status: int) -> str:
            if status not in (401, 403, 404):
                return ""
            what = "is gated or private, or does not exist" if status != 404 else "or its revision does not exist"
            return f"responded with {status}: {repo} {what}; asked with {access.credentials(_TOKEN)}"

        revision = quote(match["revision"] or "main", safe="")
        url = f"{endpoint}/api/models/{repo}/revision/{revision}?blobs=true"
        text, _ = get(access.client, url, most=_LONGEST_LISTING, headers=headers, refusal=refusal)
        commit, listed = _listing(text, uri)
        prefix = f"{folder}/" if folder else ""
        files = []
        for entry in listed:
            path = str(entry.get("rfilename", ""))
            name = path.removeprefix(prefix)
            if not path.startswith(prefix) or not is_adapter_file(name):
                continue
            stored = entry.get("lfs") or {}
            sha256 = stored.get("sha256") if isinstance(stored, dict) else None
            digest = f"sha256:{sha256}" if isinstance(sha256, str) else ""
            size = entry.get("size")
            files.append(
                web_file(
                    access.client,
                    f"{endpoint}/{repo}/resolve/{commit}/{quote(path)}",
                    name,
                    headers=headers,
                    refusal=refusal,
                    size=size if isinstance(size, int) and not isinstance(size, bool) else None,
                    digest=digest,
                )
            )
        return files


def _listing(text: bytes, uri: str) -> tuple[str, list[dict[str, Any]]]:
    try:
        document = json.loads(text)
        commit, listed = document["sha"], document["siblings"]
        if re.fullmatch(r"[0-9a-f]{7,64}", commit) and all(isinstance(entry, dict) for entry in listed):
            return commit, listed
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise FetchError(f"{uri}: the hub's answer is not a list of the repository's files; does HF_ENDPOINT name a hub?")
