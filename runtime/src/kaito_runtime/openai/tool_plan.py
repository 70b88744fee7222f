"""What a conversation becomes for a model: its prompt, the grammar of a call that it must make, and how to read it.

Where the model's chat template knows tools, it shows them. Where it does not, they are described in the system message,
and calls and results of earlier turns become text. The fields of requests are in `tools`.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from kaito_core.api.messages import shown
from kaito_runtime.errors import RequestError
from kaito_runtime.model.tool_formats import ToolFormat, find_format, find_thoughts, takes_tools
from kaito_runtime.openai.codec import TextCodec
from kaito_runtime.openai.requests import ChatMessage, ChatRequest
from kaito_runtime.openai.tool_reader import AnswerReader, ToolReader
from kaito_runtime.openai.tools import Tool, ToolChoice

__all__ = ["ChatPlan", "call_grammar", "check_tools", "json_rule", "plan_chat"]

Message = dict[str, Any]
_MAX_CALLS = 16  # that an answer must make at most; small models go on forever
_TOOLS_IN_SYSTEM = re.compile(r"message(\[['\"]tools['\"]\]|\.tools)")  # Phi's template looks for them there
_DESCRIPTION = (
    "You can call functions. To call one, answer only with JSON, one line per call:\n"
    '{"name": "...", "arguments": {...}}\nFunctions:\n'
)


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """A conversation, ready for a model.

    Attributes:
        prompt: The prompt's text.
        new_reader: Returns what reads an answer.
        kept: Special tokens whose text the reader needs.
        tools: Tools that the model may call, each with its place in the request.
        must_call: Whether its answer must be calls.
        single: Whether one call is all that is wanted.
        form: How it writes calls.
    """

    prompt: str
    new_reader: Callable[[], AnswerReader]
    kept: frozenset[int]
    tools: Sequence[tuple[int, Tool]]
    must_call: bool
    single: bool
    form: ToolFormat


def check_tools(request: ChatRequest) -> tuple[Sequence[tuple[int, Tool]], ToolChoice]:
    """Returns the tools that the model may call, each with its place in the request, and whether it must.

    Raises:
        RequestError: Two have one name, or `tool_choice` is not possible with them (400).
    """
    tools = list(enumerate(request.tools or ()))
    choice: ToolChoice = request.tool_choice or ToolChoice("auto")
    names: dict[str, int] = {}
    for place, tool in tools:
        if (first := names.setdefault(tool.function.name, place)) != place:
            message = f"tools[{place}].function.name must be unique, got {shown(tool.function.name)}, as tools[{first}]"
            raise RequestError(message, param=f"tools[{place}].function.name")
    if not tools and (choice.mode == "required" or choice.names is not None):
        raise RequestError("tool_choice must be 'auto' or 'none' where tools are not given", param="tool_choice")
    if missing := [name for name in choice.names or () if name not in names]:
        message = f"tool_choice names {shown(missing[0])}, which is not among the tools: {', '.join(names)}"
        raise RequestError(message, param="tool_choice")
    if choice.mode == "none":
        return [], choice
    return [
        (place, tool) for place, tool in tools if choice.names is None or tool.function.name in choice.names
    ], choice


def plan_chat(request: ChatRequest, codec: TextCodec, *, has_form: bool, template: str = "") -> ChatPlan:
    """Returns what a conversation becomes.

    Args:
        has_form: Whether the request asks for a form of the answer, such as JSON.
        template: The chat template; "" takes the model's.

    Raises:
        RequestError: Tools or messages cannot be served (400).
    """
    tools, choice = check_tools(request)
    render = partial(codec.render_chat, template=template, options=request.template_options)
    template = template or codec.chat_template
    form = find_format(template, codec.tool_formats)
    prompt = _rendered(request.messages, [tool for _, tool in tools], form, template, render)
    thoughts = find_thoughts(template)
    thinking = thoughts is not None and prompt.rstrip().endswith(thoughts.start)
    must_call = choice.mode == "required"
    if must_call or has_form:  # what must have a form has no thoughts in front
        if thoughts is not None and thinking:
            prompt += f"{thoughts.end}\n\n"
        thoughts, thinking = None, False
    if must_call:
        prompt += form.opening
    elif has_form:  # then a call has no mark: `call_grammar`
        form = replace(form, bare=True)
    names = {tool.function.name for _, tool in tools}
    inside = must_call and bool(form.opening)
    single = bool(tools) and (request.parallel_tool_calls is False or (must_call and len(choice.names or ()) == 1))

    def new_reader() -> AnswerReader:
        reader = ToolReader(form, names, inside=inside, single=single) if tools else None
        return AnswerReader(thoughts, thinking=thinking, tools=reader)

    marks = {*(form.marks if tools else ()), *((thoughts.start, thoughts.end) if thoughts else ())}
    kept = frozenset(token for token, text in codec.special.items() if text in marks)
    return ChatPlan(prompt, new_reader, kept, tools, must_call, single, form)


def call_grammar(plan: ChatPlan, answer: str = "") -> str:
    """Returns the grammar of calls in Lark's notation. Their arguments always follow the schemas of the tools.

    Args:
        answer: Right side of the rule for an answer that is no call; "" where it must be one.
    """
    key = plan.form.arguments
    separator = json.dumps(plan.form.between if plan.must_call else "\n", ensure_ascii=False)
    more = "" if plan.single else f" ({separator} call){{0,{_MAX_CALLS - 1}}}"
    rules = [
        "start: calls | answer" if answer else "start: calls",
        f"calls: call{more}",
        "call: " + " | ".join(f"call_{place}" for place, _ in plan.tools),
    ]
    if answer:
        rules.append(f"answer: {answer}")
    for place, tool in plan.tools:
        begin = json.dumps('{"name": ' + json.dumps(tool.function.name) + f', "{key}": ')
        rules.append(f'call_{place}: {begin} arguments_{place} "}}"')
        rules.append(f"arguments_{place}: {json_rule(tool.function.schema_of_arguments())}")
    return "\n".join(rules)


def json_rule(schema: Mapping[str, Any]) -> str:
    """Returns the right side of a rule for JSON that follows a schema."""
    layout = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return "%json " + json.dumps({**schema, "x-guidance": layout})


def _rendered(
    messages: Sequence[ChatMessage], tools: Sequence[Tool], form: ToolFormat, template: str, render: Callable[..., str]
) -> str:
    turns = _with_names_of_results([message.for_template() for message in messages])
    if not takes_tools(template):
        return _render_plain(_without_tools(turns), tools, render)
    if "tool_calls" not in template:
        turns = [_with_calls_as_text(turn, form) for turn in turns]
    if form.id_length:
        turns = [_with_short_ids(turn, form.id_length) for turn in turns]
    offered = [tool.model_dump(exclude_none=True, exclude={"function": {"strict"}}) for tool in tools]
    if tools and _TOOLS_IN_SYSTEM.search(template):
        functions = json.dumps([tool["function"] for tool in offered], ensure_ascii=False)
        turns = _with_system(turns, "You are a helpful assistant with some tools.", tools=functions)
        offered = []
    try:
        return render(turns, offered)
    except RequestError:
        if not any(turn.get("tool_calls") for turn in turns):
            raise
        return render([_with_arguments_as_text(turn) for turn in turns], offered)  # as DeepSeek's has it


def _render_plain(turns: list[Message], tools: Sequence[Tool], render: Callable[..., str]) -> str:
    if not tools:
        return render(turns)
    functions = (tool.function.model_dump(exclude_none=True, exclude={"strict"}) for tool in tools)
    text = _DESCRIPTION + "\n".join(json.dumps(function, ensure_ascii=False) for function in functions)
    try:
        return render(_with_system(turns, "", text))
    except RequestError:  # the template may know no system message
        first = next((place for place, turn in enumerate(turns) if turn["role"] == "user"), None)
        if first is None or turns[0]["role"] == "system":
            raise
        asked = turns[first] | {"content": f"{text}\n\n{turns[first]['content']}"}
        return render([*turns[:first], asked, *turns[first + 1 :]])


def _with_system(turns: Sequence[Message], default: str, text: str = "", **more: str) -> list[Message]:
    """Adds to the system message, or puts one in front where there is none."""
    begun = bool(turns) and turns[0]["role"] == "system"
    content = [turns[0]["content"] if begun else default, text]
    system = {"role": "system", "content": "\n\n".join(part for part in content if part), **more}
    return [system, *turns[1 if begun else 0 :]]


def _without_tools(turns: Iterable[Message]) -> list[Message]:
    """Writes calls and results as text, for a template that knows neither."""
    written: list[Message] = []
    for turn in turns:
        if turn["role"] == "tool":
            name = f" {turn['name']}" if turn.get("name") else ""
            turn = {"role": "user", "content": f"The function{name} returned: {turn['content']}", "result": True}
        turn = _with_calls_as_text(turn, ToolFormat("plain"))
        last = written[-1] if written else {}
        if last.get("result") and turn["role"] == "user":  # many templates want the two sides to take turns
            written[-1] = turn | {"content": f"{last['content']}\n{turn['content']}"}
        else:
            written.append(turn)
    return [{key: turn[key] for key in turn if key in ("role", "content")} for turn in written]


def _with_calls_as_text(turn: Message, form: ToolFormat) -> Message:
    if not turn.get("tool_calls"):
        return turn
    calls = [
        json.dumps(
            {"name": call["function"]["name"], form.arguments: call["function"]["arguments"]}, ensure_ascii=False
        )
        for call in turn["tool_calls"]
    ]
    text = form.opening + form.between.join(calls) + form.closing
    content = "\n".join(part for part in (turn["content"], text) if part)
    return {**{key: value for key, value in turn.items() if key != "tool_calls"}, "content": content}


def _with_arguments_as_text(turn: Message) -> Message:
    calls = [
        call | {"function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"])}}
        for call in turn.get("tool_calls", ())
    ]
    return turn | {"tool_calls": calls} if calls else turn


def _with_short_ids(turn: Message, length: int) -> Message:
    """Shortens ids, such as those of another server, to what the template takes."""

    def short(identifier: str) -> str:
        if re.fullmatch(rf"[a-zA-Z0-9]{{{length}}}", identifier):
            return identifier
        return hashlib.sha256(identifier.encode()).hexdigest()[:length]

    changed = dict(turn)
    if "tool_call_id" in turn:
        changed["tool_call_id"] = short(turn["tool_call_id"])
    if turn.get("tool_calls"):
        changed["tool_calls"] = [call | {"id": short(call["id"])} for call in turn["tool_calls"]]
    return changed


def _with_names_of_results(turns: Sequence[Message]) -> list[Message]:
    """Adds to each result the name of the function, which the call has and some templates want."""
    names = {call["id"]: call["function"]["name"] for turn in turns for call in turn.get("tool_calls", ())}
    return [
        turn | {"name": names[turn["tool_call_id"]]}
        if turn["role"] == "tool" and "name" not in turn and turn["tool_call_id"] in names
        else turn
        for turn in turns
    ]
