"""What POST /v1/responses sends back: the events of a stream in OpenAI's order, and the whole response. No HTTP."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

from kaito_runtime.openai.replies import Piece, Usage
from kaito_runtime.openai.responses import ResponsesRequest

__all__ = ["Response"]

Event = dict[str, Any]


class Response:
    """One response in the making. `push` takes what the model writes; `body` is the response so far.

    Args:
        request: What was asked.
    """

    def __init__(self, request: ResponsesRequest) -> None:
        self._number = 0
        self._open: dict[str, Any] | None = None  # the output item that is being written
        text = request.text.model_dump(exclude_none=True, by_alias=True) if request.text else {}
        self.body: dict[str, Any] = {
            "id": _new_id("resp"),
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "metadata": request.metadata or {},
            "model": request.model,
            "output": [],
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": 1.0 if request.temperature is None else request.temperature,
            "text": {"format": {"type": "text"}} | text,
            "tool_choice": _choice_body(request.tool_choice),
            "tools": [_tool_body(tool.model_dump()) for tool in request.tools or ()],
            "top_p": 1.0 if request.top_p is None else request.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": request.user,
        }

    def opening(self) -> Iterator[Event]:
        """Yields the events that start a stream."""
        for kind in ("response.created", "response.in_progress"):
            yield self._event(kind, response=self._snapshot())

    def push(self, piece: Piece) -> Iterator[Event]:
        """Yields the events of a piece of the answer."""
        if piece.thoughts:
            yield from self._enter("reasoning")
            yield from self._write_text("response.reasoning_text.delta", piece.thoughts)
        if piece.text:
            yield from self._enter("message")
            yield from self._write_text("response.output_text.delta", piece.text, logprobs=[])
        for part in piece.calls:
            if part.name:
                yield from self._close()
                yield from self._add(
                    {
                        "type": "function_call",
                        "id": _new_id("fc"),
                        "call_id": part.id,
                        "name": part.name,
                        "arguments": "",
                        "status": "in_progress",
                    }
                )
            if part.arguments and self._open is not None:
                self._open["arguments"] += part.arguments
                yield self._item_event("response.function_call_arguments.delta", delta=part.arguments)

    def closing(self, finish: str | None, usage: Usage) -> Iterator[Event]:
        """Yields the events that end a stream.

        Args:
            finish: Why the answer ended; "length" makes the response incomplete.
        """
        status = "incomplete" if finish == "length" else "completed"
        if not self.body["output"]:  # an answer without a word is a message all the same
            yield from self._enter("message")
        yield from self._close(status)
        self.body["status"] = status
        self.body["incomplete_details"] = {"reason": "max_output_tokens"} if finish == "length" else None
        self.body["usage"] = {
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
            "output_tokens": usage.completion,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.prompt + usage.completion,
        }
        yield self._event(f"response.{status}", response=self._snapshot())

    def failing(self, message: str, code: str) -> Iterator[Event]:
        """Yields the event of a response that cannot be completed."""
        self.body["status"] = "failed"
        # OpenAI's typed clients know a fixed list of codes; the words say what ours is.
        self.body["error"] = {"code": "server_error", "message": f"{message} ({code})"}
        yield self._event("response.failed", response=self._snapshot())

    def _enter(self, kind: str) -> Iterator[Event]:
        """Makes sure that the open item is of a kind."""
        if self._open is not None and self._open["type"] == kind:
            return
        yield from self._close()
        if kind == "message":
            yield from self._add(
                {"type": kind, "id": _new_id("msg"), "role": "assistant", "content": [], "status": "in_progress"}
            )
            part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        else:
            yield from self._add(
                {"type": kind, "id": _new_id("rs"), "summary": [], "content": [], "status": "in_progress"}
            )
            part = {"type": "reasoning_text", "text": ""}
        assert self._open is not None
        yield self._item_event("response.content_part.added", content_index=0, part=dict(part))
        self._open["content"].append(part)

    def _add(self, item: dict[str, Any]) -> Iterator[Event]:
        self.body["output"].append(item)
        self._open = item
        yield self._event("response.output_item.added", output_index=self._place, item=_copied(item))

    def _write_text(self, kind: str, text: str, **more: Any) -> Iterator[Event]:
        assert self._open is not None
        self._open["content"][0]["text"] += text
        yield self._item_event(kind, content_index=0, delta=text, **more)

    def _close(self, status: str = "completed") -> Iterator[Event]:
        item = self._open
        if item is None:
            return
        item["status"] = status
        if item["type"] == "function_call":
            yield self._item_event(
                "response.function_call_arguments.done", arguments=item["arguments"], name=item["name"]
            )
        else:
            part = item["content"][0]
            more: dict[str, Any] = {"logprobs": []} if item["type"] == "message" else {}
            kind = f"response.{part['type']}.done"
            yield self._item_event(kind, content_index=0, text=part["text"], **more)
            yield self._item_event("response.content_part.done", content_index=0, part=dict(part))
        yield self._event("response.output_item.done", output_index=self._place, item=_copied(item))
        self._open = None

    @property
    def _place(self) -> int:
        return len(self.body["output"]) - 1

    def _item_event(self, kind: str, **fields: Any) -> Event:
        assert self._open is not None
        return self._event(kind, item_id=self._open["id"], output_index=self._place, **fields)

    def _event(self, kind: str, **fields: Any) -> Event:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **fields}

    def _snapshot(self) -> dict[str, Any]:
        return self.body | {"output": [_copied(item) for item in self.body["output"]]}


def _copied(item: dict[str, Any]) -> dict[str, Any]:
    return item | {"content": [dict(part) for part in item["content"]]} if "content" in item else dict(item)


def _tool_body(tool: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", **tool, "strict": bool(tool["strict"])}


def _choice_body(choice: Any) -> Any:
    match choice:
        case None:
            return "auto"
        case {"type": "function", "function": {"name": name}}:
            return {"type": "function", "name": name}
        case {"allowed_tools": {"mode": mode, "tools": tools}}:
            return {"type": "allowed_tools", "mode": mode, "tools": [_choice_body(tool) for tool in tools]}
    return choice


def _new_id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"
