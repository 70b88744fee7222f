"""Calls of the Kubernetes API in terms of HTTP: paths, retries, and what an answer means. No client is imported here.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote, urlencode

import aiohttp

from kaito_core.api import KubeObject, ResourceType
from kaito_core.errors import ClusterError

__all__ = [
    "APPLY",
    "JSON",
    "JSON_PATCH",
    "MERGE",
    "STRATEGIC",
    "Call",
    "Response",
    "exchange",
    "identity",
    "object_path",
]

log = logging.getLogger(__name__)

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

#: A busy API says in how many seconds to come back; it is asked again this often, and not after a longer wait.
_RETRIES, _LONGEST_RETRY_SECONDS = 4, 30


class Response(NamedTuple):
    """An HTTP response."""

    status: int
    retry_after: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """A request that is to be sent.

    Attributes:
        method: HTTP method.
        path: Without the query.
        query: Parameters.
        body: Sent as JSON; None for no body.
        content_type: Of the body; says which kind of patch it is.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: KubeObject | list[KubeObject] | None = None
    content_type: str = JSON

    @property
    def target(self) -> str:
        """The path with the query."""
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def object_path(resource: ResourceType, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """Returns the path of an object or one of its subresources, or without a name that of all objects."""
    parts = ["apis", resource.group, resource.version] if resource.group else ["api", resource.version]
    if namespace and resource.namespaced:
        parts += ["namespaces", namespace]
    parts += [part for part in (resource.plural, name, subresource) if part]
    return "/" + "/".join(quote(part, safe="") for part in parts)


def identity(document: KubeObject) -> KubeObject:
    """Returns the fields that identify an object; applied with its uid, a deleted object is not created again."""
    metadata = document["metadata"]
    named = {key: metadata[key] for key in ("name", "namespace", "uid") if metadata.get(key)}
    return {"apiVersion": document["apiVersion"], "kind": document["kind"], "metadata": named}


async def exchange(
    send: Callable[[Call], Awaitable[Response]],
    call: Call,
    attempted: Callable[[int], None] = lambda status: None,
) -> tuple[int, KubeObject]:
    """Returns the HTTP status and the JSON of the answer to a call; sends it again where a busy API asks for that.

    Args:
        send: Sends a call once.
        call: The call.
        attempted: Is given the HTTP status of each attempt, 0 for no answer.

    Raises:
        ClusterError: The API answers with an error, with no JSON object, or not at all.
    """
    for retries in range(_RETRIES + 1):
        status = 0
        try:
            answer = await send(call)
            status = answer.status
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            raise ClusterError(f"{call}: {type(error).__name__}: {error}") from error
        finally:
            attempted(status)
        wait = _retry_after(answer)
        if wait is None or retries == _RETRIES:
            break
        log.debug("%s: the API asks to come back in %d seconds", call, wait)
        await asyncio.sleep(wait)
    if status >= 400:
        raise _api_error(call, answer)
    try:
        return status, dict(json.loads(answer.body))
    except ValueError as error:
        message = f"{call}: the answer must be a JSON object, got {answer.body[:200]!r}"
        raise ClusterError(message, status=status) from error


def _retry_after(answer: Response) -> int | None:
    """Returns the seconds after which a busy API wants to be asked again; None where it names none or too many."""
    if answer.status not in (429, 503) or not answer.retry_after.isdigit():
        return None
    seconds = int(answer.retry_after)
    return seconds if seconds <= _LONGEST_RETRY_SECONDS else None


def _api_error(call: Call, answer: Response) -> ClusterError:
    try:
        document = json.loads(answer.body)
        message, reason = str(document["message"]), str(document.get("reason", ""))
    except (ValueError, TypeError, KeyError):
        message, reason = answer.body.decode(errors="replace").strip()[:200] or "no reason given", ""
    return ClusterError(f"{call}: {message} ({answer.status})", status=answer.status, api_reason=reason)
