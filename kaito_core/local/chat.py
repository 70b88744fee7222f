"""A talk with a served model in the terminal."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from kaito_core.api import parse_strength
from kaito_core.errors import ConfigError

__all__ = ["talk"]


def talk(url: str, model: str, adapters: Mapping[str, str] | None, prompt: str) -> None:
    """Answers one prompt, or one after the other until the end of input.

    Args:
        url: Where the model is served.
        model: Model id, "" for the first that the server lists.
        adapters: Strength by adapter for this talk, None for the model's own.
        prompt: What to ask; "" asks the user.

    Raises:
        ConfigError: Nothing answers at `url`, or the server refuses.
    """
    extra: dict[str, Any] = {}
    if adapters is not None:
        extra["adapters"] = [{"name": name, "strength": _strength(name, text)} for name, text in adapters.items()]
    with httpx.Client(base_url=url, timeout=httpx.Timeout(10, read=600)) as client:
        try:
            extra["model"] = model or client.get("/v1/models").raise_for_status().json()["data"][0]["id"]
            if prompt:
                _print(_answer(client, [{"role": "user", "content": prompt}], extra))
                return
            _loop(client, extra)
        except httpx.HTTPStatusError as error:
            error.response.read()
            raise ConfigError(f"{url} answers {error.response.status_code}: {error.response.text[:500]}") from error
        except httpx.TransportError as error:
            raise ConfigError(f"nothing answers at {url} ({error}); start something with kaito up") from error


def _strength(name: str, text: str) -> float:
    try:
        return parse_strength(text)
    except ValueError as error:
        raise ConfigError(f"--adapter {name}: {error}") from error


def _loop(client: httpx.Client, extra: Mapping[str, Any]) -> None:
    messages: list[dict[str, str]] = []
    while True:
        try:
            text = input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if text.strip():
            messages.append({"role": "user", "content": text})
            messages.append({"role": "assistant", "content": _print(_answer(client, messages, extra))})


def _print(parts: Iterator[str]) -> str:
    answer = ""
    for part in parts:
        print(part, end="", flush=True)
        answer += part
    print()
    return answer


def _answer(client: httpx.Client, messages: list[dict[str, str]], extra: Mapping[str, Any]) -> Iterator[str]:
    body = {**extra, "messages": messages, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            data = line.removeprefix("data: ")
            if data == line or data == "[DONE]":
                continue
            for choice in json.loads(data).get("choices", []):
                yield choice.get("delta", {}).get("content") or ""
