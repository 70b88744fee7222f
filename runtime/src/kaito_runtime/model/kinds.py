"""Which kinds of layers can be computed in batches, by a model's configuration, before its weights are read.

Whether a model of these kinds computes the same in a batch as alone is tested at the start, in `engine.self_check`.
"""

from typing import Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig

from kaito_runtime.errors import ModelLoadError

__all__ = ["check_kinds"]

#: Kinds of layers as configurations name them: attention over keys and values, and layers that keep nothing.
BATCHED = ("full_attention", "sliding_attention")
_KEEP_NOTHING = ("attention", "mlp", "moe")
_STATES = ("linear_attention", "hybrid", "mamba", "conv", "recurrent")
_RULE = (
    "the server batches layers of full attention and of sliding-window attention (full_attention, sliding_attention in "
    "config.json), whose state is keys and values of one shape"
)


def check_kinds(config: PretrainedConfig) -> None:
    """Checks that a model's layers can be computed in batches.

    Raises:
        ModelLoadError: They cannot; the message has the kinds that can.
    """
    name = (getattr(config, "architectures", None) or [type(config).__name__])[0]
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelLoadError(
            f"{name} is not a causal language model of text alone (transformers' AutoModelForCausalLM does not know "
            f"'{config.model_type}'): models for images or sound are not served; if its text model is published apart, "
            "serve that"
        )
    text: Any = config.get_text_config()
    if why := _why_not(text):
        raise ModelLoadError(f"{name} {why}; {_RULE}")


def _why_not(text: Any) -> str:
    kinds = {str(kind) for kind in getattr(text, "layer_types", None) or ()}
    if strange := sorted(kinds - {*BATCHED, *_KEEP_NOTHING}):
        state = ", which keep a state of their own" if set(strange) & set(_STATES) else ""
        return f"has layers of {', '.join(strange)}{state}"
    if getattr(text, "kv_lora_rank", None):
        return "has multi-head latent attention (kv_lora_rank)"
    try:
        _ = getattr(text, "head_dim", None), getattr(text, "num_key_value_heads", None)
    except Exception:  # transformers' AmbiguousGlobalPerLayerAttributeError, which it does not export
        return "has heads whose width or number differs by layer"
    return ""
