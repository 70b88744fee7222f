"""The bodies of responses in OpenAI's format: completions, chunks of a stream, models, errors. No HTTP."""

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kaito_runtime.adapters.cards import ModelCard
from kaito_runtime.engine.protocol import PromptToken, Token

__all__ = ["CallPart", "FinishReason", "Piece", "Reply", "Usage", "error_body", "model_body", "sse"]

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request.

    Attributes:
        prompt: Tokens of the prompts.
        completion: Tokens of the answers.
        cached: Prompt tokens that were not computed, since an earlier request had the same.
    """

    prompt: int
    completion: int
    cached: int = 0

    def body(self) -> dict[str, Any]:
        """Returns OpenAI's "usage"."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


@dataclass(frozen=True, slots=True)
class CallPart:
    """A part of a tool call. The first of a call has its id and its name, and no arguments.

    Attributes:
        index: Index of the call within its choice.
        arguments: More of the arguments' JSON.
    """

    index: int
    arguments: str
    id: str = ""
    name: str = ""

    def body(self) -> dict[str, Any]:
        """Returns OpenAI's form of it in a stream."""
        if not self.name:
            return {"index": self.index, "function": {"arguments": self.arguments}}
        function = {"name": self.name, "arguments": self.arguments}
        return {"index": self.index, "id": self.id, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of one choice.

    Attributes:
        index: Index of the choice.
        tokens: Its tokens, each with its text.
        finish: Why the choice ends with this piece; None where it goes on.
        thoughts: What the model thinks before it answers; not part of `text`.
        calls: Parts of its tool calls.
    """

    index: int
    text: str
    tokens: Sequence[tuple[Token, str]] = ()
    finish: FinishReason | None = None
    thoughts: str = ""
    calls: Sequence[CallPart] = ()

    @property
    def empty(self) -> bool:
        """Whether a reader learns nothing from it."""
        return not (self.text or self.tokens or self.finish or self.thoughts or self.calls)

    def tool_calls(self) -> list[dict[str, Any]]:
        """Returns whole calls in OpenAI's form."""
        whole: dict[int, dict[str, Any]] = {}
        for part in self.calls:
            if part.name:
                whole[part.index] = {
                    "id": part.id,
                    "type": "function",
                    "function": {"name": part.name, "arguments": ""},
                }
            whole[part.index]["function"]["arguments"] += part.arguments
        return list(whole.values())


class Reply:
    """Makes the response bodies of one request: one body, or the chunks of a stream.

    Args:
        chat: Whether the endpoint is chat completions; else completions.
        model: The request's model id.
        generation: Generation of the configuration that answers; OpenAI's "system_fingerprint" is made of it.
        bytes_of: Returns the bytes of a single token.
        logprobs: Whether log-probabilities were asked for.
    """

    def __init__(
        self, *, chat: bool, model: str, generation: int, bytes_of: Callable[[int], bytes], logprobs: bool = False
    ) -> None:
        self._chat = chat
        self._bytes_of = bytes_of
        self._has_logprobs = logprobs
        self._offsets: dict[int, int] = {}
        self.id = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._head = {
            "id": self.id,
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": f"generation-{generation}",
        }

    def whole(
        self, pieces: Sequence[Piece], usage: Usage, prompts: Sequence[Sequence[PromptToken]] = ()
    ) -> dict[str, Any]:
        """Returns the single body.

        Args:
            pieces: One per choice, in order.
            prompts: The prompt's tokens of each choice, where their log-probabilities were asked for.
        """
        choices = []
        for piece in pieces:
            content = {"message": _message(piece)} if self._chat else {"text": piece.text}
            choices.append(self._choice(piece, content))
        kind = "chat.completion" if self._chat else "text_completion"
        body: dict[str, Any] = {**self._head, "object": kind, "choices": choices, "usage": usage.body()}
        # vLLM has them once for a conversation, and per choice for completions.
        for target, prompt in zip([body] if self._chat else choices, prompts, strict=False):
            target["prompt_logprobs"] = self._prompt_logprobs(prompt)
        return body

    def opening(self, index: int) -> dict[str, Any] | None:
        """Returns the chunk that starts a choice; None where the endpoint has none."""
        if not self._chat:
            return None
        choice = {
            "index": index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        return self._chunk([choice])

    def chunk(self, piece: Piece, usage: Usage | None = None) -> dict[str, Any]:
        """Returns the chunk of one piece; with the token counts so far, if they are given."""
        content = {"delta": _delta(piece)} if self._chat else {"text": piece.text}
        counts = {} if usage is None else {"usage": usage.body()}
        return {**self._chunk([self._choice(piece, content)]), **counts}

    def closing(self, usage: Usage) -> dict[str, Any]:
        """Returns the last chunk, with the token counts."""
        return {**self._chunk([]), "usage": usage.body()}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            **self._head,
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "choices": choices,
        }

    def _choice(self, piece: Piece, content: Mapping[str, Any]) -> dict[str, Any]:
        return {"index": piece.index, **content, "logprobs": self._logprobs(piece), "finish_reason": piece.finish}

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        if not self._has_logprobs:
            return None
        if self._chat:
            content = [
                {
                    **self._entry(token.id, token.logprob),
                    "top_logprobs": [self._entry(other, value) for other, value in token.top],
                }
                for token, _ in piece.tokens
            ]
            return {"content": content, "refusal": None}
        offsets = []
        offset = self._offsets.get(piece.index, 0)
        for _, text in piece.tokens:
            offsets.append(offset)
            offset += len(text)
        self._offsets[piece.index] = offset
        return {
            "tokens": [self._text_of(token.id) for token, _ in piece.tokens],
            "token_logprobs": [token.logprob for token, _ in piece.tokens],
            "top_logprobs": [self._top(token) for token, _ in piece.tokens],
            "text_offset": offsets,
        }

    def _prompt_logprobs(self, prompt: Sequence[PromptToken]) -> list[dict[str, Any] | None]:
        """Returns vLLM's "prompt_logprobs": for each token but the first, those of the token and of the likeliest."""
        return [None if token.logprob is None else self._ranked(token) for token in prompt]

    def _ranked(self, token: PromptToken) -> dict[str, Any]:
        entries = [(other, value, rank) for rank, (other, value) in enumerate(token.top, start=1)]
        if token.id not in dict(token.top):
            entries.append((token.id, token.logprob or 0.0, None))  # type: ignore[arg-type]
        return {
            str(other): {"logprob": value, "rank": rank, "decoded_token": self._text_of(other)}
            for other, value, rank in entries
        }

    def _top(self, token: Token) -> dict[str, float] | None:
        """Returns the alternatives to a token, and itself; None for the first of a prompt, which has no probability."""
        if token.logprob is None:
            return None
        return {self._text_of(other): value for other, value in (*token.top, (token.id, token.logprob))}

    def _entry(self, token: int, logprob: float | None) -> dict[str, Any]:
        return {"token": self._text_of(token), "logprob": logprob, "bytes": list(self._bytes_of(token))}

    def _text_of(self, token: int) -> str:
        """Returns the text of a single token, or "token_id:N" for a part of a character, which has none."""
        try:
            return self._bytes_of(token).decode()
        except UnicodeDecodeError:
            return f"token_id:{token}"


def _message(piece: Piece) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": piece.text}
    if piece.thoughts:
        message["reasoning_content"] = piece.thoughts
    if piece.calls:
        message |= {"content": piece.text or None, "tool_calls": piece.tool_calls()}
    return message


def _delta(piece: Piece) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if piece.thoughts:
        delta["reasoning_content"] = piece.thoughts
    if piece.text:
        delta["content"] = piece.text
    if piece.calls:
        delta["tool_calls"] = [part.body() for part in piece.calls]
    return delta


def model_body(card: ModelCard, created: int, context_length: int) -> dict[str, Any]:
    """Returns a model as /v1/models lists it.

    Args:
        created: Unix time that clients see as the model's age.
        context_length: Longest sequence, in tokens.
    """
    single = next(iter(card.strengths.values())) if len(card.strengths) == 1 else None
    return {
        "id": card.id,
        "object": "model",
        "created": created,
        "owned_by": "kaito",
        "root": card.root,
        "parent": card.parent,
        "max_model_len": context_length,
        "strength": single,
        "generation": card.generation,
        "adapters": [{"name": name, "strength": strength} for name, strength in card.strengths.items()],
    }


def error_body(message: str, *, status: int, code: str | None, param: str | None) -> dict[str, Any]:
    """Returns OpenAI's error body."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error" if status < 500 else "server_error"
    )
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def sse(body: Mapping[str, Any]) -> str:
    """Returns one server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"
