"""The real model through the real server: answers that make sense, and logits that are exact."""

import copy
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from live import Live, serving

from kaito_core.api.serving import ServingConfig
from kaito_runtime.testing.models import load_fp32, merged, save_adapter

pytestmark = [pytest.mark.slow, pytest.mark.model]

TOLERANCE = 1e-5  # of the largest logit: what rounding over 30 layers explains in float32
MESSAGES: Any = [{"role": "user", "content": "What is the capital of France?"}]
ATTENTION = ["q_proj", "v_proj"]


class Real:
    """A server with SmolLM2 and three random adapters, and the same weights in transformers' hands."""

    def __init__(self, live: Live, plain: Any, adapters: Path) -> None:
        self.live = live
        self.plain = plain
        self.adapters = adapters
        self.client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)
        self.logits: list[torch.Tensor] = []
        self.prompts: list[list[int]] = []
        live.engine._watch_logits = self._watch

    def _watch(self, prompts: list[list[int]], logits: torch.Tensor) -> None:
        self.prompts.extend(list(prompt) for prompt in prompts)
        self.logits.extend(logits.clone())

    def ask(self, strengths: dict[str, float], tokens: int, question: str = "Why is the sky blue?") -> str:
        self.logits.clear()
        self.prompts.clear()
        listed = [{"name": name, "strength": strength} for name, strength in strengths.items()]
        answer = self.client.chat.completions.create(
            model="smollm2",
            messages=[{"role": "user", "content": question}],
            max_tokens=tokens,
            temperature=0,
            extra_body={"adapters": listed},
        )
        return str(answer.choices[0].message.content)


@pytest.fixture(scope="module")
def real(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    plain = load_fp32(smollm2)
    adapters = tmp_path_factory.mktemp("adapters")
    kinds: dict[str, dict[str, Any]] = {
        "small": {"r": 8, "lora_alpha": 16, "target_modules": ATTENTION},
        "rslora": {"r": 20, "lora_alpha": 8, "use_rslora": True, "target_modules": "all-linear"},
        "patterns": {
            "r": 8,
            "lora_alpha": 8,
            "target_modules": "all-linear",
            "rank_pattern": {"down_proj": 3, r"model\.layers\.1\.self_attn\.q_proj": 33},
            "alpha_pattern": {"up_proj": 12},
        },
    }
    for seed, (name, kind) in enumerate(kinds.items()):
        save_adapter(copy.deepcopy(plain), adapters / name, seed=seed, std=0.02, **kind)
    config = {"model": {"name": "smollm2", "dtype": "float32"}, "adapters": [{"name": name} for name in kinds]}
    with serving(smollm2, ServingConfig.model_validate(config), adapters_dir=adapters, cache_gib=0.3) as live:
        yield Real(live, plain, adapters)


def test_base_answers_the_question(real: Real) -> None:
    answer = real.client.chat.completions.create(model="base", messages=MESSAGES, temperature=0, max_tokens=20)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    chunks = real.client.chat.completions.create(
        model="base", messages=MESSAGES, temperature=0, max_tokens=20, stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "The capital of France is Paris."


@pytest.mark.parametrize(
    "strengths",
    [
        {"small": 0.8, "rslora": 0.5},
        {"rslora": 1.0, "patterns": -1.0},
        {"patterns": 2.0, "small": 0.0},
        {"small": 0.8, "rslora": 0.5, "patterns": 0.7},
    ],
    ids=json.dumps,
)
def test_served_logits_are_those_of_merged_weights(real: Real, strengths: dict[str, float]) -> None:
    real.ask(strengths, tokens=4)
    served = torch.stack(real.logits)
    prompt, tokens = real.prompts[0], [int(row.argmax()) for row in served]
    truth_model = merged(
        real.adapters, {real.adapters / name: s for name, s in strengths.items()}, base=copy.deepcopy(real.plain)
    )
    with torch.no_grad():
        ids = torch.tensor([[*prompt, *tokens[:-1]]])
        truth = truth_model(ids).logits[0, len(prompt) - 1 :]
        base = real.plain(ids).logits[0, len(prompt) - 1 :]
    bound = TOLERANCE * truth.abs().max()
    assert (served - truth).abs().max() <= bound
    assert (base - truth).abs().max() > 1000 * bound


def test_strength_zero_and_no_adapters_are_the_same_bits(real: Real) -> None:
    real.ask({}, tokens=4)
    none = torch.stack(real.logits)
    real.ask({"small": 0.0, "rslora": 0.0, "patterns": 0.0}, tokens=4)
    assert torch.equal(none, torch.stack(real.logits))


def test_requests_with_different_strengths_share_a_batch_and_get_what_they_get_alone(real: Real) -> None:
    sets = [{}, {"small": 3.0}, {"rslora": 1.5}, {"patterns": 2.0}, {"small": -2.0, "rslora": 1.0}, {"rslora": -1.5}]
    work = [(strengths, 8) for strengths in sets]
    passes = real.live.engine.stats().passes
    with ThreadPoolExecutor(len(work)) as pool:
        together = list(pool.map(lambda arguments: real.ask(*arguments), work))
    assert real.live.engine.stats().passes - passes < len(work) * 8 / 2
    assert together == [real.ask(*arguments) for arguments in work]
    assert len(set(together)) >= 4


def test_a_forced_call_follows_its_schema(real: Real) -> None:
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "unit"],
    }
    asked: Any = {
        "model": "base",
        "messages": [{"role": "user", "content": "What is the weather in Paris, in Celsius?"}],
        "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}],
        "temperature": 0,
        "max_tokens": 60,
    }
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        answered = real.client.chat.completions.create(**asked, tool_choice=choice, parallel_tool_calls=False)
        assert answered.choices[0].finish_reason == "tool_calls"
        (call,) = answered.choices[0].message.tool_calls or ()
        assert call.type == "function" and call.function.name == "get_weather"
        arguments = json.loads(call.function.arguments)
        assert set(arguments) == {"city", "unit"} and "Paris" in arguments["city"] and arguments["unit"] in ("C", "F")
