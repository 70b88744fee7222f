"""Chats with a served model in the terminal, through the OpenAI API of any server."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import httpx
from httpx_sse import SSEError, connect_sse

from kaito_core.api import parse_strength
from kaito_core.errors import ConfigError

__all__ = ["chat"]

_LONGEST_ERROR = 500  # characters of an error that is not in OpenAI's form, such as a proxy's page


def chat(url: str, model: str, adapters: Mapping[str, str] | None, prompt: str, *, api_key: str = "") -> None:
    """Answers one prompt, or prompts from standard input until it ends.

    Args:
        url: Where the model is served, with or without the path /v1.
        model: Model id; "" for the first that the server lists.
        adapters: Strength by adapter for this chat; None for the model's own.
        prompt: The only prompt; "" reads prompts from standard input.
        api_key: Bearer token, for a server that requires one.

    Raises:
        ConfigError: Nothing answers at `url`, or the server refuses `prompt`. Without `prompt`, refusals are printed.
    """
    extra: dict[str, Any] = {}
    if adapters is not None:
        extra["adapters"] = [{"name": name, "strength": _strength(name, text)} for name, text in adapters.items()]
    # Clients of OpenAI's API are given a URL that ends in /v1, and curl one without a scheme.
    base = url.rstrip("/").removesuffix("/v1")
    base = base if "://" in base else f"http://{base}"
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    with httpx.Client(base_url=base, headers=headers, timeout=httpx.Timeout(10, read=600)) as client:
        extra["model"] = model or _first_model(client)
        if prompt:
            _print(_answer(client, [{"role": "user", "content": prompt}], extra), [])
        else:
            _converse(client, extra)


def _strength(name: str, text: str) -> float:
    try:
        return parse_strength(text)
    except ValueError as error:
        raise ConfigError(f"--adapter {name}: {error}") from error


def _first_model(client: httpx.Client) -> str:
    try:
        response = client.get("/v1/models")
        if response.is_error:
            raise ConfigError(_refusal(response))
        return str(response.json()["data"][0]["id"])
    except httpx.TransportError as error:
        raise ConfigError(_unreachable(client, error)) from error
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"{client.base_url} does not list models at /v1/models; is it a model server?") from error


def _converse(client: httpx.Client, extra: Mapping[str, Any]) -> None:
    with suppress(ImportError):
        import readline  # noqa: F401  # gives `input` a history and line editing; Windows does not have it
    messages: list[dict[str, str]] = []
    while True:
        try:
            text = input("> ")
        except KeyboardInterrupt:  # ends the line
            print()
            continue
        except EOFError:
            print()
            return
        if not text.strip():
            continue
        question = {"role": "user", "content": text}
        said: list[str] = []
        try:
            _print(_answer(client, [*messages, question], extra), said)
        except ConfigError as error:
            # The chat goes on without this question.
            print(error, file=sys.stderr)
        except KeyboardInterrupt:  # what was read so far stays part of the talk
            if not said:
                continue
        if said:
            messages += [question, {"role": "assistant", "content": "".join(said)}]


def _print(parts: Iterator[str], said: list[str]) -> None:
    """Prints an answer as it comes, and notes in `said` what was printed, also where it does not come to its end."""
    try:
        for part in parts:
            print(part, end="", flush=True)
            said.append(part)
    finally:
        if said:
            print()


def _answer(client: httpx.Client, messages: list[dict[str, str]], extra: Mapping[str, Any]) -> Iterator[str]:
    """Yields the text of an answer piece by piece.

    Raises:
        ConfigError: The server refuses the request, or fails while it answers.
    """
    body = {**extra, "messages": messages, "stream": True}
    ended = False
    try:
        with connect_sse(client, "POST", "/v1/chat/completions", json=body) as source:
            if source.response.is_error:
                source.response.read()
                raise ConfigError(_refusal(source.response))
            for event in source.iter_sse():
                if event.data == "[DONE]":
                    return
                piece = event.json()
                if error := piece.get("error"):
                    raise ConfigError(_words(error))
                for choice in piece.get("choices", []):
                    ended = ended or bool(choice.get("finish_reason"))
                    if text := choice.get("delta", {}).get("content"):
                        yield text
        if not ended:
            raise ConfigError(f"{client.base_url} ended the stream before the answer was complete")
    except (SSEError, json.JSONDecodeError) as error:  # the first is a TransportError too
        raise ConfigError(
            f"{client.base_url} does not answer with a stream of events ({error}); is it a model server?"
        ) from error
    except httpx.TransportError as error:
        raise ConfigError(_unreachable(client, error)) from error


def _refusal(response: httpx.Response) -> str:
    """Returns the server's own message, or its status and text if it is not in OpenAI's form."""
    try:
        return _words(response.json()["error"])
    except (ValueError, LookupError, TypeError):
        return f"{response.url} answers {response.status_code}: {response.text[:_LONGEST_ERROR]}"


def _words(error: Any) -> str:
    return str(error["message"] if isinstance(error, dict) and "message" in error else error)


def _unreachable(client: httpx.Client, error: httpx.TransportError) -> str:
    return f"nothing answers at {client.base_url} ({error}); start a server with kaito up, or name another with --url"
