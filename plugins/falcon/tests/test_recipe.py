"""The Falcon recipe against transformers' own Falcon, on tiny random models."""

import copy
import re
from typing import Any

import pytest
import torch
from torch import nn
from transformers import ContinuousBatchingConfig, FalconConfig, FalconForCausalLM, GenerationConfig

from kaito_falcon.modeling import kv_heads
from kaito_falcon.recipe import cut, kaito_runtime_recipes, prepare, tp_plan
from kaito_runtime.errors import ModelLoadError

TINY: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "7b": {"multi_query": True, "parallel_attn": True},
    "40b": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "40b-all-heads": {"new_decoder_architecture": True, "num_kv_heads": 8},
    "11b-one-norm": {"new_decoder_architecture": True, "num_kv_heads": 4, "num_ln_in_parallel_attn": 1},
    "rw-serial": {"multi_query": False, "parallel_attn": False, "bias": True},
    "serial-multi-query": {"multi_query": True, "parallel_attn": False},
    "untied": {"multi_query": True, "tie_word_embeddings": False},
}


def pair(name: str, attention: str = "sdpa") -> tuple[Any, Any]:
    """Returns transformers' model and the converted one, with equal weights that are far from their initial values."""
    torch.manual_seed(len(name))
    own = FalconForCausalLM(FalconConfig(**TINY, **CONFIGS[name], attn_implementation=attention)).eval()
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    ours = copy.deepcopy(own)
    prepare(ours)
    return own, ours


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal_transformers(name: str, attention: str) -> None:
    own, ours = pair(name, attention)
    ids = torch.randint(3, 97, (2, 17))
    expected = own(ids).logits
    assert expected.std() > 0.1  # logits that are all alike would agree with anything
    torch.testing.assert_close(ours(ids).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal_with_past_key_values(name: str) -> None:
    own, ours = pair(name)
    ids = torch.randint(3, 97, (2, 12))
    own_past = own(ids[:, :7], use_cache=True).past_key_values
    our_past = ours(ids[:, :7], use_cache=True).past_key_values
    assert our_past.layers[0].keys.shape == (2, kv_heads(ours.config), 7, 8)
    for stop in (8, 12):
        start = own_past.get_seq_length()
        expected = own(ids[:, start:stop], past_key_values=own_past, use_cache=True).logits
        actual = ours(ids[:, start:stop], past_key_values=our_past, use_cache=True).logits
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["7b", "40b", "rw-serial"])
def test_left_padding_is_masked(name: str) -> None:
    own, ours = pair(name)
    ids = torch.randint(3, 97, (2, 9))
    mask = torch.ones_like(ids)
    ids[1, :4], mask[1, :4] = 0, 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    expected = own(ids, attention_mask=mask, position_ids=positions).logits
    actual = ours(ids, attention_mask=mask, position_ids=positions).logits
    torch.testing.assert_close(actual[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)


def test_generate_gives_the_same_tokens() -> None:
    own, ours = pair("40b")
    ids = torch.randint(3, 97, (1, 6))
    options = GenerationConfig(max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert torch.equal(ours.generate(ids, generation_config=options), own.generate(ids, generation_config=options))


@pytest.mark.parametrize("logits_to_keep", [1, torch.tensor([0, 4])])
def test_logits_to_keep(logits_to_keep: Any) -> None:
    own, ours = pair("7b")
    ids = torch.randint(3, 97, (1, 6))
    expected = own(ids, logits_to_keep=logits_to_keep).logits
    torch.testing.assert_close(ours(ids, logits_to_keep=logits_to_keep).logits, expected, atol=1e-5, rtol=1e-5)


def test_embeddings_can_be_given() -> None:
    own, ours = pair("7b")
    embedded = own.get_input_embeddings()(torch.randint(3, 97, (1, 6)))
    torch.testing.assert_close(ours(inputs_embeds=embedded).logits, own(inputs_embeds=embedded).logits)
    with pytest.raises(ValueError, match="exactly one"):
        ours()


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["7b", "40b", "rw-serial"])
def test_continuous_batches_give_the_tokens_of_generate(name: str, attention: str) -> None:
    own, ours = pair(name, attention)
    prompts = [torch.randint(3, 97, (length,)).tolist() for length in (3, 11, 40, 5)]
    options = GenerationConfig(max_new_tokens=10, do_sample=False, eos_token_id=-1, pad_token_id=0)
    batching = ContinuousBatchingConfig(
        num_blocks=32, page_size=16, max_batch_tokens=24, allow_block_sharing=False, auto_switch_to_flash=False
    )
    results = ours.generate_batch(
        inputs=prompts, generation_config=options, continuous_batching_config=batching, progress_bar=False
    )
    actual = {tuple(result.prompt_ids): list(result.generated_tokens) for result in results.values()}
    for prompt in prompts:
        expected = own.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=10, do_sample=False,
            eos_token_id=None, pad_token_id=0,
        )[0, len(prompt) :].tolist()  # fmt: skip
        assert actual[tuple(prompt)] == expected


def test_parameters_and_module_names_stay() -> None:
    own, ours = pair("40b")
    assert list(own.state_dict()) == list(ours.state_dict())
    assert [name for name, _ in own.named_modules()] == [name for name, _ in ours.named_modules()]
    linear = ours.transformer.h[0].self_attention.query_key_value
    assert type(linear) is type(own.transformer.h[0].self_attention.query_key_value)


def test_cache_is_sized_by_key_value_heads() -> None:
    assert pair("7b")[1].config.num_key_value_heads == 1
    assert pair("40b")[1].config.num_key_value_heads == 2
    assert pair("rw-serial")[1].config.num_key_value_heads == 8


def test_alibi_is_refused() -> None:
    model = FalconForCausalLM(FalconConfig(**TINY, alibi=True))
    with pytest.raises(ModelLoadError, match="alibi is true"):
        prepare(model)
    assert type(model) is FalconForCausalLM


def test_other_models_are_refused() -> None:
    with pytest.raises(ModelLoadError, match="FalconForCausalLM"):
        prepare(torch.nn.Linear(2, 2))


def test_recipe_is_found_by_architecture() -> None:
    (recipe,) = kaito_runtime_recipes()
    assert recipe.name == "falcon"
    assert recipe.architectures == ("FalconForCausalLM",)
    assert recipe.prepare is prepare


def test_lora_adapters_for_falcon_still_match() -> None:
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    own, ours = pair("40b")
    ids = torch.randint(3, 97, (1, 9))
    base = own(ids).logits
    targets = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False)
    own, ours = get_peft_model(own, config).eval(), get_peft_model(ours, config).eval()
    loaded = set_peft_model_state_dict(ours, get_peft_model_state_dict(own))
    assert loaded.unexpected_keys == []
    expected = own(ids).logits
    assert (expected - base).abs().max() > 0.1
    torch.testing.assert_close(ours(ids).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_plan_and_cut_take_every_linear_layer(name: str) -> None:
    _, ours = pair(name)
    named = {re.sub(r"\.\d+\.", ".*.", path) for path, module in ours.named_modules() if isinstance(module, nn.Linear)}
    planned = set(tp_plan(ours.config)) - {"transformer.word_embeddings"}
    cut_up = {re.sub(r"\.\d+\.", ".*.", path) for path in cut(ours, 0, 2)}
    assert planned | cut_up == named
    assert not planned & cut_up


def test_ranks_share_the_queries_and_each_has_the_only_key_and_value() -> None:
    path = "transformer.h.1.self_attention.query_key_value"
    taken = []
    for rank in range(4):
        _, ours = pair("7b")
        whole = ours.get_submodule(path).weight
        shard = cut(ours, rank, 4)[path]
        part = shard.of_rows(whole)
        assert ours.transformer.h[1].self_attention.num_heads == 2
        assert torch.equal(part[-16:], whole[-16:])  # heads are 8 wide
        taken.append(part[:-16])
    assert torch.equal(torch.cat(taken), whole[:-16])
