"""POST /chat, the route of upstream's servers. It always uses the default model id."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from kaito_runtime.errors import RequestError
from kaito_runtime.openai.requests import Body, ChatMessage, ChatRequest, CompletionRequest
from kaito_runtime.openai.service import CompletionService
from kaito_runtime.openai.stream import Answer

__all__ = ["UpstreamRequest", "answer_upstream", "result_body"]

_MAX_LENGTH = 200  # upstream's default; tokens of prompt and answer together


class GenerateOptions(BaseModel):
    """Upstream's `generate_kwargs`. Those without a meaning here are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")

    max_length: int = Field(default=_MAX_LENGTH, ge=1)
    max_new_tokens: int | None = Field(default=None, ge=1)
    do_sample: bool = True
    temperature: float = Field(default=1.0, ge=0, le=100, allow_inf_nan=False)
    top_k: int = Field(default=10, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)


class UpstreamRequest(Body):
    """Body of POST /chat."""

    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1)] | None = None
    return_full_text: bool = True
    generate_kwargs: GenerateOptions = GenerateOptions()


async def answer_upstream(body: UpstreamRequest, service: CompletionService, model: str) -> Answer:
    """Starts the answer to an upstream request.

    Args:
        model: Model id to answer from.

    Raises:
        RequestError: It has neither or both of prompt and messages, or cannot be served.
    """
    options = body.generate_kwargs
    sampling: dict[str, Any] = {
        "model": model,
        "temperature": options.temperature if options.do_sample else 0.0,
        "top_k": options.top_k,
        "top_p": options.top_p,
    }
    if body.prompt is None and body.messages is None:
        raise RequestError("Text generation parameter prompt required", param="prompt")  # upstream's words
    if body.prompt is not None and body.messages is not None:
        raise RequestError("messages must be absent where prompt is given", param="messages")
    if body.messages is not None:
        limit = options.max_new_tokens or options.max_length
        return await service.chat(ChatRequest(messages=body.messages, max_tokens=limit, **sampling))
    prompt = body.prompt or ""
    limit = options.max_new_tokens or options.max_length - await service.length_of(prompt)
    if limit < 1:
        message = f"generate_kwargs.max_length must be more than the prompt's tokens, got {options.max_length}"
        raise RequestError(message, param="generate_kwargs.max_length")
    return await service.completion(CompletionRequest(prompt=prompt, max_tokens=limit, **sampling))


def result_body(body: UpstreamRequest, text: str) -> dict[str, str]:
    """Returns upstream's response body."""
    echo = body.prompt if body.prompt is not None and body.return_full_text else ""
    return {"Result": echo + text}
