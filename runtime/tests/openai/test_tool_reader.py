"""Recorded answers of each family of models, read in pieces of any size."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaito_runtime.model.tool_formats import PLAIN, TOOL_FORMATS, Thoughts, ToolFormat, find_format, find_thoughts
from kaito_runtime.openai.tool_reader import AnswerReader, ToolReader, new_call_id

FORMATS = {form.name: form for form in TOOL_FORMATS} | {"plain": PLAIN}
NAMES = {"weather", "time", "search"}
PARIS = ("weather", {"city": "Paris"})
ROME = ("weather", {"city": "Rome"})
NESTED = ("search", {"query": 'a "b" {c} [d] \\ é', "filter": {"tags": ["x", "}"], "limit": 3, "deep": {"on": True}}})
NESTED_TEXT = json.dumps(NESTED[1], ensure_ascii=False)

# (format, what the model wrote, the text of the answer, its calls)
ANSWERS: list[tuple[str, str, str, list[tuple[str, Any]]]] = [
    # Qwen 2.5 and 3, Hermes 2 and 3
    ("hermes", '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>', "", [PARIS]),
    (
        "hermes",
        'I will look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>\n<tool_call>\n'
        '{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>',
        "I will look.",
        [PARIS, ROME],
    ),
    ("hermes", '<tool_call>\n{"arguments": {"city": "Paris"}, "name": "weather"}\n</tool_call>', "", [PARIS]),
    ("hermes", f'<tool_call>{{"name": "search", "arguments": {NESTED_TEXT}}}</tool_call>', "", [NESTED]),
    ("hermes", '<tool_call>\n{"name": "time"}\n</tool_call>', "", [("time", {})]),
    ("hermes", '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call> Done.', "Done.", [("time", {})]),
    ("hermes", '<tool_call>\n{"name": "other", "arguments": {"a": 1}}\n</tool_call>', "", [("other", {"a": 1})]),
    ("hermes", "Use <tool_call> to call.", "Use<tool_call> to call.", []),
    ("hermes", "a < b and <b>bold</b> <tool", "a < b and <b>bold</b> <tool", []),
    ("hermes", '{"name": "weather", "arguments": {}}', '{"name": "weather", "arguments": {}}', []),
    # Llama 3.1 and 3.2
    ("llama-3", '{"name": "weather", "parameters": {"city": "Paris"}}', "", [PARIS]),
    ("llama-3", '<|python_tag|>{"name": "weather", "parameters": {"city": "Paris"}}', "", [PARIS]),
    (
        "llama-3",
        '{"name": "weather", "parameters": {"city": "Paris"}}; {"name": "weather", "parameters": {"city": "Rome"}}',
        "",
        [PARIS, ROME],
    ),
    ("llama-3", '{"type": "function", "name": "weather", "parameters": {"city": "Paris"}}', "", [PARIS]),
    ("llama-3", '{"type": "function", "function": "weather", "parameters": {"city": "Paris"}}', "", [PARIS]),
    (
        "llama-3",
        '{"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}',
        "",
        [PARIS],
    ),
    ("llama-3", '{"name": "weather", "parameters": "{\\"city\\": \\"Paris\\"}"}', "", [PARIS]),
    ("llama-3", '{"name": "Ada", "age": 36}', '{"name": "Ada", "age": 36}', []),
    ("llama-3", '{"city": "Paris", "name": "weather"}', '{"city": "Paris", "name": "weather"}', []),
    ("llama-3", "It is sunny; {really}.", "It is sunny; {really}.", []),
    # Mistral 7B v0.3 and Nemo, then tokenizers from version 11
    ("mistral", '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Paris"}}]', "", [PARIS]),
    (
        "mistral",
        '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}}, {"name": "weather", '
        '"arguments": {"city": "Rome"}, "id": "abcdefghi"}]',
        "",
        [PARIS, ROME],
    ),
    ("mistral", "No call [TOOL", "No call [TOOL", []),
    ("mistral-named", '[TOOL_CALLS]weather[ARGS]{"city": "Paris"}', "", [PARIS]),
    (
        "mistral-named",
        'Looking.[TOOL_CALLS]weather[ARGS]{"city": "Paris"}[TOOL_CALLS]weather[CALL_ID]a1[ARGS]{"city": "Rome"}',
        "Looking.",
        [PARIS, ROME],
    ),
    ("mistral-named", f"[TOOL_CALLS]search{NESTED_TEXT}", "", [NESTED]),
    ("mistral-named", '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}}]', "", [PARIS]),
    # Phi-4-mini
    (
        "phi-4-mini",
        '<|tool_call|>[{"name": "weather", "arguments": {"city": "Paris"}}]<|/tool_call|>',
        "",
        [PARIS],
    ),
    (
        "phi-4-mini",
        'functools[{"name": "weather", "arguments": {"city": "Paris"}}, {"name": "weather", "arguments": '
        '{"city": "Rome"}}]',
        "",
        [PARIS, ROME],
    ),
    ("phi-4-mini", "Use functools for that.", "Use functools for that.", []),
    # models whose template knows no tools
    ("plain", '{"name": "weather", "arguments": {"city": "Paris"}}', "", [PARIS]),
    ("plain", '```json\n{"name": "weather", "arguments": {"city": "Paris"}}\n```', "", [PARIS]),
    (
        "plain",
        '[{"name": "weather", "arguments": {"city": "Paris"}}, {"name": "weather", "arguments": {"city": "Rome"}}]',
        "",
        [PARIS, ROME],
    ),
    (
        "plain",
        '{"name": "weather", "arguments": {"city": "Paris"}}\n{"name": "weather", "arguments": {"city": "Rome"}}',
        "",
        [PARIS, ROME],
    ),
    ("plain", '{"name": "weather", "arguments": {"city": "Paris"}}\nThat is it.', "That is it.", [PARIS]),
    ("plain", "[1, 2, 3]", "[1, 2, 3]", []),
    ("plain", "```python\nprint(1)\n```", "```python\nprint(1)\n```", []),
    ("plain", "{ not json", "{ not json", []),
    ("plain", '{"name": 1}', '{"name": 1}', []),
    ("plain", "   hello", "   hello", []),
    ("plain", "``", "``", []),
    ("plain", "", "", []),
]


def pieces(text: str, size: int) -> Iterator[str]:
    return (text[i : i + size] for i in range(0, len(text), size))


def read(reader: Any, parts: Any) -> tuple[str, str, list[tuple[str, str]]]:
    """Returns thoughts, text and calls."""
    thoughts, text, calls = "", "", {}
    for got in (*map(reader.push, parts), reader.flush()):
        thoughts += got.thoughts
        text += got.text
        for part in got.calls:
            if part.name:
                assert part.index not in calls and part.id and not part.arguments, "the name comes first, once"
                calls[part.index] = [part.name, ""]
            calls[part.index][1] += part.arguments
    assert list(calls) == list(range(len(calls)))
    return thoughts, text, [(name, arguments) for name, arguments in calls.values()]


@pytest.mark.parametrize("size", [1, 3, 10_000])
@pytest.mark.parametrize(("form", "written", "text", "calls"), ANSWERS)
def test_each_family_is_read(form: str, written: str, text: str, calls: list[tuple[str, Any]], size: int) -> None:
    reader = AnswerReader(None, tools=ToolReader(FORMATS[form], NAMES))
    thoughts, got, found = read(reader, pieces(written, size))
    assert (thoughts, got.strip(), [(name, json.loads(arguments)) for name, arguments in found]) == (
        "",
        text.strip(),
        calls,
    )
    assert reader.called is bool(calls)


def test_arguments_come_in_pieces_as_they_are_written() -> None:
    reader = ToolReader(FORMATS["hermes"], NAMES, new_id=lambda: "id")
    got = [reader.push(part) for part in ('<tool_call>{"name": "weather", ', '"arguments": {"ci', 'ty": "Par', 'is"}}')]
    assert [[(part.name, part.arguments) for part in each.calls] for each in got] == [
        [("weather", "")],
        [("", '{"ci')],
        [("", 'ty": "Par')],
        [("", 'is"}')],
    ]


def test_a_call_that_the_prompt_began_needs_no_mark() -> None:
    reader = ToolReader(FORMATS["hermes"], NAMES, inside=True)
    written = (
        '{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>\n<tool_call>\n'
        '{"name": "time", "arguments": {}}'
    )
    assert read(reader, pieces(written, 4))[2] == [("weather", '{"city": "Paris"}'), ("time", "{}")]


def test_a_single_call_ends_the_answer() -> None:
    reader = ToolReader(PLAIN, NAMES, single=True)
    written = '{"name": "time", "arguments": {}}\n{"name": "weather", "arguments": {}}'
    assert read(reader, pieces(written, 3))[2] == [("time", "{}")]
    assert reader.complete


def test_a_call_that_is_cut_off_has_the_arguments_so_far() -> None:
    reader = ToolReader(FORMATS["hermes"], NAMES)
    assert read(reader, ['<tool_call>{"name": "weather", "arguments": {"city": "Pa'])[1:] == (
        "",
        [("weather", '{"city": "Pa')],
    )


@pytest.mark.parametrize("size", [1, 3, 10_000])
@pytest.mark.parametrize(
    ("thinking", "written", "thoughts", "text"),
    [
        (False, "<think>\nHm. 2 < 3\n</think>\n\nFour.", "Hm. 2 < 3", "Four."),
        (True, "Hm.\n</think>\n\nFour.", "Hm.", "Four."),
        (True, "Hm, it goes on", "Hm, it goes on", ""),
        (False, "<think>\n\n</think>\n\nFour.", "", "Four."),
        (False, "Four.", "", "Four."),
        (False, "<thin", "", "<thin"),
        (False, "x <think>y</think>", "", "x <think>y</think>"),
    ],
)
def test_thoughts_are_apart_from_the_answer(thinking: bool, written: str, thoughts: str, text: str, size: int) -> None:
    reader = AnswerReader(Thoughts("<think>", "</think>"), thinking=thinking)
    assert read(reader, pieces(written, size))[:2] == (thoughts, text)


def test_a_call_may_follow_thoughts() -> None:
    tools = ToolReader(FORMATS["hermes"], NAMES)
    reader = AnswerReader(Thoughts("<think>", "</think>"), tools=tools)
    written = '<think>Call <tool_call>?</think>\n<tool_call>{"name": "time", "arguments": {}}</tool_call>'
    assert read(reader, pieces(written, 5)) == ("Call <tool_call>?", "", [("time", "{}")])


@given(st.text("[]{}\"':,;`\\ab \n<>|_toolcal", max_size=60), st.integers(1, 9), st.sampled_from(sorted(FORMATS)))
def test_no_text_is_lost_and_nothing_raises(text: str, size: int, form: str) -> None:
    reader = AnswerReader(Thoughts("<think>", "</think>"), tools=ToolReader(FORMATS[form], NAMES))
    _, got, calls = read(reader, pieces(text, size))
    if not calls:
        squeezed = [letter for letter in text if not letter.isspace()]
        assert [letter for letter in got if not letter.isspace()] == squeezed


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{% if tools %}<tools>{% endif %}<tool_call>", "hermes"),
        ("{{ tools }}<|start_header_id|><|python_tag|>", "llama-3"),
        ("[AVAILABLE_TOOLS]{{ tools }}[TOOL_CALLS]", "mistral"),
        ("[AVAILABLE_TOOLS]{{ tools }}[TOOL_CALLS]name[ARGS]", "mistral-named"),
        ("{% if 'tools' in message %}<|tool|>{{ message['tools'] }}<|/tool|>", "phi-4-mini"),
        ("{{ tools }}", "plain"),
        ("<|start_header_id|>{{ messages }}", "plain"),
        ("", "plain"),
    ],
)
def test_the_template_says_which_family_it_is(template: str, name: str) -> None:
    assert find_format(template).name == name


def test_a_recipe_may_bring_a_format_of_its_own() -> None:
    own = ToolFormat("own", known_by=("<<call>>",), starts=("<<call>>",))
    assert find_format("{{ tools }}<<call>><tool_call>", [own]) is own
    assert find_format("{{ tools }}<tool_call>", [own]).name == "hermes"
    assert read(ToolReader(own, NAMES), ['ok <<call>>{"name": "time"}'])[1:] == ("ok", [("time", "{}")])


def test_thoughts_are_known_by_their_last_mark() -> None:
    assert find_thoughts("{{ content.split('</think>') }}") == Thoughts("<think>", "</think>")
    assert find_thoughts("{{ messages }}") is None


def test_ids_are_as_the_template_takes_them() -> None:
    assert len(new_call_id(FORMATS["mistral"])) == 9 and new_call_id(FORMATS["mistral"]).isalnum()
    assert new_call_id(PLAIN).startswith("call_")
