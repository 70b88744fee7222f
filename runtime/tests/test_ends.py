"""Adapters on the output head and the input embedding, served in mixed batches, against PEFT's own forward pass."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft_truth import truth, wrapped
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from kaito_runtime.engine.protocol import Job
from kaito_runtime.formats.files import read_adapter
from kaito_runtime.lora.inject import inject_lora
from kaito_runtime.testing.harness import GREEDY, running
from kaito_runtime.testing.models import load_fp32, save_adapter
from kaito_runtime.testing.truth import TINY, save_random

TOLERANCE = 1e-4
KINDS: Mapping[str, Mapping[str, Any]] = {
    "head": {"target_modules": ["q_proj", "lm_head"], "r": 4},
    "embedding": {"target_modules": ["embed_tokens", "v_proj"], "r": 20, "use_rslora": True},
    "both": {"target_modules": ["embed_tokens", "lm_head"], "r": 3, "lora_alpha": 5},
    "tied": {"target_modules": ["embed_tokens"], "r": 4, "ensure_weight_tying": True},
    "tokens": {"target_modules": ["q_proj"], "r": 4, "trainable_token_indices": [45, 46, 200]},
    "inner": {"target_modules": ["q_proj"], "r": 4},
}


@pytest.fixture(scope="module", params=[False, True], ids=["apart", "tied"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = LlamaConfig(**TINY, tie_word_embeddings=request.param)
    return save_random(LlamaForCausalLM(config), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folders(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = tmp_path_factory.mktemp("adapters")
        return {name: _save(model, folder / name, **config) for name, config in KINDS.items()}


def _save(model: Path, folder: Path, **config: Any) -> Path:
    """Writes an adapter whose trained tokens have changed too."""
    base = load_fp32(model)
    if config.get("trainable_token_indices"):
        from peft import LoraConfig, get_peft_model

        wrapped = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **config))
        torch.manual_seed(5)
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name or "trainable_tokens" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        wrapped.save_pretrained(folder)
        return folder
    return save_adapter(base, folder, seed=len(config["target_modules"]), **config)


@pytest.fixture(scope="module")
def harness(model: Path) -> Iterator[Any]:
    with running(model, end_tokens=()) as harness:
        yield harness


def test_each_row_of_a_mixed_batch_gets_its_own_head_and_embedding(
    model: Path, folders: Mapping[str, Path], harness: Any
) -> None:
    live = {name: harness.load(name, folder) for name, folder in folders.items()}
    wanted = [(name, 1.0 if name == "tokens" else strength) for name in live for strength in (1.0, -0.5)] + [("", 0.0)]
    jobs = []
    for number, (name, strength) in enumerate(wanted):
        prompt = [40 + (7 * number + i) % 60 for i in range(9 + number)]
        jobs.append(Job(prompt, 4, {live[name]: strength} if name else {}, GREEDY))
    harness.logits.clear()
    answers = harness.tokens(jobs)
    for job, answer, (name, strength) in zip(jobs, answers, wanted, strict=True):
        sequence = [*job.prompt, *(token.id for token in answer)][:-1]
        served = torch.stack(harness.logits[tuple(job.prompt)])
        expected = truth(model, folders.get(name), strength, sequence)[len(job.prompt) - 1 :]
        assert (served - expected).abs().max() <= TOLERANCE, name
        if name:
            assert (served - truth(model, None, 0, sequence)[len(job.prompt) - 1 :]).abs().max() > 100 * TOLERANCE


def test_prompts_are_scored_under_the_head_of_their_own_adapter(
    model: Path, folders: Mapping[str, Path], harness: Any
) -> None:
    """The head gets the rows that choose tokens first, then those that score prompts."""
    head = harness.load("scored", folders["head"])
    prompts = [[40 + (7 * number + i) % 60 for i in range(90 - 20 * number)] for number in range(3)]
    sets = ({head: 1.0}, {}, {head: -0.5})
    jobs = [
        Job(prompt, 2, strengths, GREEDY, prompt_logprobs=0) for prompt, strengths in zip(prompts, sets, strict=True)
    ]

    async def run() -> list[Any]:
        streams = [harness.engine.submit(job) for job in (*jobs, Job([9, 8], 30, {head: 2.0}, GREEDY))]
        for stream in streams:
            async for _ in stream:
                pass
        return [stream.prompt for stream in streams]

    for prompt, strengths, scored in zip(prompts, sets, harness.portal.call(run), strict=False):
        folder = folders["head"] if strengths else None
        expected = truth(model, folder, strengths.get(head, 0.0), prompt).log_softmax(-1)
        for place, token in enumerate(scored[1:]):
            assert abs(token.logprob - float(expected[place, token.id])) <= TOLERANCE


def test_trained_tokens_are_weighed_by_their_difference(model: Path, folders: Mapping[str, Path], harness: Any) -> None:
    """Half of a trained row is half way from the base model's row to it."""
    from safetensors.torch import load_file

    version = harness.load("half", folders["tokens"])
    tensors = load_file(folders["tokens"] / "adapter_model.safetensors")
    (rows,) = [tensor for key, tensor in tensors.items() if "trainable_tokens" in key]
    ids = KINDS["tokens"]["trainable_token_indices"]
    base = load_fp32(model)
    lookup = base.get_input_embeddings().weight.data
    lookup[ids] = (lookup[ids] + rows) / 2
    halved = wrapped(base, folders["tokens"], 0.5)
    for module in halved.modules():
        if hasattr(module, "trainable_tokens_delta"):
            for tokens in module.trainable_tokens_delta.values():
                tokens.data = lookup[ids].clone()
    prompt = (45, 46, 47, 200, 44)
    harness.logits.clear()
    (first,) = harness.answer(prompt, {version: 0.5}, 1)
    with torch.no_grad():
        expected = halved(torch.tensor([prompt])).logits[0, -1]
    assert (harness.logits[prompt][0] - expected).abs().max() <= TOLERANCE
    assert first == int(expected.argmax())


@pytest.mark.parametrize("paged", [False, True])
def test_a_factor_on_the_embedding_weighs_adapters_too(paged: bool, tmp_path: Path) -> None:
    sizes = {key: value for key, value in TINY.items() if key != "num_key_value_heads"}
    config = Gemma3TextConfig(**sizes, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True)
    model = save_random(Gemma3ForCausalLM(config), tmp_path / "model")
    folder = save_adapter(model, tmp_path / "a", seed=1, r=20, lora_alpha=8, target_modules=["embed_tokens", "q_proj"])
    ours = load_fp32(model)
    lora = inject_lora(ours, paged=paged)
    version = lora.bank.load(read_adapter(folder, ours, name="a"))
    ids = torch.arange(40, 49)[None]
    lora.routing.set([(4, {}), (5, {version: 0.7})], [(1, {version: 0.7})])
    with torch.no_grad():
        embedded = ours.get_input_embeddings()(ids)
        base = load_fp32(model).get_input_embeddings()(ids)
    assert torch.equal(embedded[0, :4], base[0, :4])
    with torch.no_grad():
        wrapped = PeftModel.from_pretrained(load_fp32(model), folder)
        layer = wrapped.get_input_embeddings()
        layer.scaling["default"] *= 0.7
        assert (embedded[0, 4:] - layer(ids)[0, 4:]).abs().max() <= TOLERANCE
    assert not torch.equal(embedded[0, 4:], base[0, 4:])
