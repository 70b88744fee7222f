"""Models whose layers cannot be batched are refused by their configuration, in words of our own.

The rows are in docs/reference/architectures.md, too.
"""

from pathlib import Path

import pytest
import transformers

from kaito_runtime.errors import ModelLoadError
from kaito_runtime.model.kinds import check_kinds
from kaito_runtime.model.load import load_model

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "architectures.md"
#: Prefix of transformers' classes: (what is said, the remark on the page).
REFUSED = {
    "Bamba": ("has layers of linear_attention, which keep a state of their own", "linear attention"),
    "DeepseekV2": ("has multi-head latent attention (kv_lora_rank)", "multi-head latent attention"),
    "DeepseekV3": ("has multi-head latent attention (kv_lora_rank)", "multi-head latent attention"),
    "FalconH1": ("has layers of hybrid, which keep a state of their own", "attention and a state in one layer"),
    "Gemma4": ("has heads whose width or number differs by layer", "heads whose width differs by layer"),
    "Jamba": ("has layers of linear_attention, which keep a state of their own", "linear attention"),
    "Lfm2": ("has layers of conv, which keep a state of their own", "convolutions"),
    "Llama4": ("has layers of chunked_attention", "chunked attention"),
    "Llava": ("is not a causal language model of text alone", "images"),
    "Mamba": ("has layers of linear_attention, which keep a state of their own", "a state instead of keys and values"),
    "Mistral3": ("is not a causal language model of text alone", "images"),
    "NemotronH": ("has layers of linear_attention, which keep a state of their own", "linear attention"),
    "Qwen2_5_VL": ("is not a causal language model of text alone", "images"),
    "Qwen3Next": ("has layers of linear_attention, which keep a state of their own", "linear attention"),
    "Qwen3VL": ("is not a causal language model of text alone", "images"),
    "Qwen3_5": ("has layers of linear_attention, which keep a state of their own", "linear attention"),
    "Qwen3_5Moe": ("has layers of linear_attention, which keep a state of their own", "linear attention"),
}
SIZES = {"Lfm2": {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}}
SERVED = ("Llama", "Mistral", "Gemma2", "Gemma3", "GptOss", "Cohere2", "Falcon", "GPT2", "Qwen2", "Qwen3Moe", "Olmo3")


@pytest.mark.parametrize("prefix", REFUSED)
def test_what_cannot_be_batched_is_refused_before_the_weights_are_read(prefix: str, tmp_path: Path) -> None:
    config = getattr(transformers, f"{prefix}Config")(**SIZES.get(prefix, {}))
    said, remark = REFUSED[prefix]
    with pytest.raises(ModelLoadError) as refused:
        check_kinds(config)
    message = str(refused.value)
    assert message.startswith(prefix) and said in message
    text_alone = "AutoModelForCausalLM" in message
    assert text_alone or "batches layers of full attention and of sliding-window attention" in message
    assert f"| {prefix} | no | {remark} |" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("prefix", SERVED)
def test_others_pass(prefix: str) -> None:
    check_kinds(getattr(transformers, f"{prefix}Config")())


def test_the_refusal_is_that_of_the_server(tmp_path: Path) -> None:
    transformers.Qwen3_5TextConfig(num_hidden_layers=4).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelLoadError, match="layers of linear_attention"):
        load_model(tmp_path)
