"""A file behind a URL, opened at an offset, and what the answers of servers mean for a fetch."""

import datetime
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

import httpx

from kaito_core.api.fetching import Content, RemoteFile
from kaito_core.errors import FetchError, TransientFetchError
from kaito_core.fetch.network.rules import shown

__all__ = ["Refusal", "get", "web_file"]

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
#: Answers after which the same request may succeed later.
_TRANSIENT = frozenset({408, 421, 423, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})

#: Puts an answer of 401, 403 or 404 into words that a source knows better; "" for the usual ones.
Refusal = Callable[[int], str]


def _usual(status: int) -> str:
    return ""


def web_file(
    client: httpx.Client,
    url: str,
    name: str,
    *,
    headers: Mapping[str, str] | None = None,
    refusal: Refusal = _usual,
    **known: Any,
) -> RemoteFile:
    """Returns the file at a URL.

    Args:
        client: Asks for it.
        url: Where it is; redirects are followed.
        name: Name of the file.
        headers: For the URL's own host alone.
        refusal: Words for refusals.
        known: Fields of the RemoteFile that are known already.
    """
    return RemoteFile(name, partial(_opened, client, url, dict(headers or {}), refusal), **known)


def get(
    client: httpx.Client, url: str, *, most: int, headers: Mapping[str, str] | None = None, refusal: Refusal = _usual
) -> tuple[bytes, httpx.Headers]:
    """Returns a document of at most `most` bytes, and the headers of the answer.

    Raises:
        FetchError, TransientFetchError: As by opening a file.
    """
    with _asked(client, url, dict(headers or {}), refusal) as response:
        content = b""
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > most:
                raise FetchError(f"{shown(url)} is larger than {most:,} bytes, the limit for such a document")
        return content, response.headers


@contextmanager
def _asked(client: httpx.Client, url: str, headers: dict[str, str], refusal: Refusal) -> Iterator[httpx.Response]:
    try:
        with client.stream("GET", url, headers=headers) as response:
            if response.is_error and not (response.status_code == 416 and "Range" in headers):
                raise _refused(url, response, refusal)
            yield response
    except httpx.TooManyRedirects as error:
        raise FetchError(f"{shown(url)}: too many redirects") from error
    except httpx.TransportError as error:
        raise TransientFetchError(f"{shown(url)}: {_words(error)}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FetchError(f"{shown(url)}: {_words(error)}") from error
    except FetchError as error:
        # A host that was refused on the way does not say of which source.
        if shown(url) in str(error):
            raise
        raise type(error)(f"{shown(url)}: {error}") from error


@contextmanager
def _opened(
    client: httpx.Client, url: str, headers: dict[str, str], refusal: Refusal, offset: int, version: str
) -> Iterator[Content]:
    asked, over = dict(headers), False
    if offset:
        asked |= {"Range": f"bytes={offset}-", "If-Range": version} if version else {"Range": f"bytes={offset}-"}
    with _asked(client, url, asked, refusal) as response:
        if response.status_code == 416:  # the file is shorter now, or was thought to be longer
            over = True
        else:
            yield _content(url, response, offset)
    if over:
        with _opened(client, url, headers, refusal, 0, "") as content:
            yield content


def _content(url: str, response: httpx.Response, offset: int) -> Content:
    if response.headers.get("content-encoding", "identity") != "identity":
        return Content(response.iter_bytes())  # of a length that nobody says
    start, size = 0, _number(response.headers.get("content-length"))
    if response.status_code == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
        if match is None or int(match[1]) != offset:
            raise FetchError(f"{shown(url)} answers with another range than the one that was asked for")
        start, size = offset, _number(match[3])
    return Content(response.iter_raw(), start, size, _version(response.headers))


def _version(headers: httpx.Headers) -> str:
    """Returns a strong ETag; a weak one may stay the same while bytes change, and so may a time."""
    etag = str(headers.get("etag", "")).strip()
    return etag if etag.startswith('"') else ""


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() else None


def _refused(url: str, response: httpx.Response, refusal: Refusal) -> FetchError:
    status = response.status_code
    words = refusal(status) or f"responded with {status} {response.reason_phrase}"
    where = shown(url)
    if status not in _TRANSIENT:
        return FetchError(f"{where} {words}")
    error = TransientFetchError(f"{where} {words}")
    error.retry_after_seconds = _retry_after(response.headers.get("retry-after", ""))
    return error


def _retry_after(text: str) -> float:
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
        return max(0.0, (when - datetime.datetime.now(when.tzinfo)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
