"""Routes that turn text into tokens and back, with vLLM's bodies."""

import asyncio
from typing import Any

from fastapi import FastAPI
from pydantic import Field

from kaito_core.api.messages import shown
from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.engine.protocol import Engine
from kaito_runtime.errors import RequestError
from kaito_runtime.openai.codec import TextCodec
from kaito_runtime.openai.requests import Body, ChatMessage, ChatRequest
from kaito_runtime.openai.tool_plan import plan_chat
from kaito_runtime.openai.tools import MAX_TOOLS, Tool

__all__ = ["DetokenizeRequest", "TokenizeRequest", "add_token_routes"]


class TokenizeRequest(Body):
    """Body of POST /tokenize: a prompt, or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(default=None, min_length=1)
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    add_special_tokens: bool | None = Field(default=None, description="Of a prompt; true if not given.")
    return_token_strs: bool | None = None


class DetokenizeRequest(Body):
    """Body of POST /detokenize."""

    model: str | None = None
    tokens: list[int]


def add_token_routes(app: FastAPI, codec: TextCodec, engine: Engine, adapters: AdapterManager) -> None:
    """Adds the routes to `app`."""

    def check_model(model: str | None) -> None:
        if model is not None:
            adapters.catalog.card(model)

    def tokens_of(body: TokenizeRequest) -> list[int]:
        if body.messages is None:
            return codec.encode(body.prompt or "", special=body.add_special_tokens is not False)
        asked = ChatRequest.model_validate({"model": body.model or "", "messages": body.messages, "tools": body.tools})
        return codec.encode(plan_chat(asked, codec, has_form=False).prompt, special=False)

    @app.post("/tokenize")
    async def tokenize(body: TokenizeRequest) -> dict[str, Any]:
        check_model(body.model)
        if (body.prompt is None) == (body.messages is None):
            raise RequestError("prompt or messages must be given, and not both", param="prompt")
        tokens = await asyncio.to_thread(tokens_of, body)
        texts = [codec.decode([token]) for token in tokens] if body.return_token_strs else None
        return {
            "count": len(tokens),
            "max_model_len": engine.context_length,
            "tokens": tokens,
            "token_strs": texts,
        }

    @app.post("/detokenize")
    async def detokenize(body: DetokenizeRequest) -> dict[str, Any]:
        check_model(body.model)
        size = engine.vocabulary_size
        if wrong := [token for token in body.tokens if not 0 <= token < size]:
            message = f"tokens must be tokens from 0 to {size - 1}, got {shown(wrong[0])}"
            raise RequestError(message, param="tokens")
        return {"prompt": await asyncio.to_thread(codec.decode, body.tokens)}
